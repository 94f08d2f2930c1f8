//! As much of HTTP/2 (RFC 9113) as one request at a time needs. Header blocks are literals, so neither side keeps a table.

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const WIDE_WINDOW: u32 = 1 << 30;
const NARROW: u32 = 65535;
pub const STATUS_200: u8 = 0x88;

pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    pub fn ends_stream(&self) -> bool {
        (self.kind == DATA || self.kind == HEADERS) && self.flags & END_STREAM != 0
    }
}

/// The first frame of some bytes, and how long it is.
pub fn first(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    if bytes.len() < 9 {
        return None;
    }
    let size = 9 + (usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]));
    if bytes.len() < size {
        return None;
    }
    let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
    Some((Frame { kind: bytes[3], flags: bytes[4], stream, payload: &bytes[9..size] }, size))
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Both windows wide open; the first thing either side says after the preface.
pub fn greeting() -> Vec<u8> {
    let mut settings = vec![0, 4]; // SETTINGS_INITIAL_WINDOW_SIZE
    settings.extend(WIDE_WINDOW.to_be_bytes());
    let mut bytes = frame(SETTINGS, 0, 0, &settings);
    bytes.extend(widened(WIDE_WINDOW - NARROW));
    bytes
}

pub fn widened(by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, 0, &by.to_be_bytes())
}

/// Opens the connection's window again when half of it was used.
#[derive(Default)]
pub struct Window {
    used: u32,
}

impl Window {
    pub fn took(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        if frame.kind == DATA {
            self.used += frame.payload.len() as u32;
        }
        if self.used > WIDE_WINDOW / 2 {
            out.extend(widened(self.used));
            self.used = 0;
        }
    }
}

/// What the other side wants answered at once.
pub fn courtesy(given: &Frame, out: &mut Vec<u8>) {
    if given.kind == SETTINGS && given.flags & ACK == 0 {
        out.extend(frame(SETTINGS, ACK, 0, &[]));
    }
    if given.kind == PING && given.flags & ACK == 0 {
        out.extend(frame(PING, ACK, 0, given.payload));
    }
}

/// A literal with a name of the static table (RFC 7541, appendix A).
fn indexed(name: u8, value: &str) -> Vec<u8> {
    let mut bytes = if name < 15 { vec![name] } else { vec![15, name - 15] };
    bytes.push(value.len() as u8);
    bytes.extend(value.as_bytes());
    bytes
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, name.len() as u8];
    bytes.extend(name.as_bytes());
    bytes.push(value.len() as u8);
    bytes.extend(value.as_bytes());
    bytes
}

const AUTHORITY: u8 = 1;
const PATH: u8 = 4;
const CONTENT_LENGTH: u8 = 28;
const CONTENT_TYPE: u8 = 31;
const USER_AGENT: u8 = 58;
const GET: u8 = 0x82;
const POST: u8 = 0x83;
const ROOT: u8 = 0x84;
const HTTP: u8 = 0x86;

fn grpc_message(size: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((size as u32).to_be_bytes());
    bytes.extend(vec![b'x'; size]);
    bytes
}

/// A whole request, for any stream: `at_stream` puts the number in.
pub fn request(host: &str, is_grpc: bool) -> Vec<u8> {
    // names with a colon first (RFC 9113, 8.3)
    let mut block = if is_grpc { vec![POST, HTTP] } else { vec![GET, HTTP] };
    block.extend(if is_grpc { indexed(PATH, "/tulle.bench.Echo/Call") } else { vec![ROOT] });
    block.extend(indexed(AUTHORITY, host));
    block.extend(indexed(USER_AGENT, "loadgen"));
    if !is_grpc {
        return frame(HEADERS, END_HEADERS | END_STREAM, 0, &block);
    }
    block.extend(indexed(CONTENT_TYPE, "application/grpc"));
    block.extend(literal("te", "trailers"));
    let mut bytes = frame(HEADERS, END_HEADERS, 0, &block);
    bytes.extend(frame(DATA, END_STREAM, 0, &grpc_message(16)));
    bytes
}

/// A whole answer of `size` bytes.
pub fn answer(size: usize, is_grpc: bool) -> Vec<u8> {
    let mut block = vec![STATUS_200];
    if is_grpc {
        block.extend(indexed(CONTENT_TYPE, "application/grpc"));
        let mut bytes = frame(HEADERS, END_HEADERS, 0, &block);
        bytes.extend(frame(DATA, 0, 0, &grpc_message(size)));
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 0, &literal("grpc-status", "0")));
        return bytes;
    }
    block.extend(indexed(CONTENT_LENGTH, &size.to_string()));
    let mut bytes = frame(HEADERS, END_HEADERS, 0, &block);
    bytes.extend(frame(DATA, END_STREAM, 0, &vec![b'x'; size]));
    bytes
}

/// The same frames for another stream.
pub fn at_stream(frames: &[u8], stream: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend(frames);
    let mut at = start;
    while let Some((_, size)) = first(&out[at..]) {
        out[at + 5..at + 9].copy_from_slice(&stream.to_be_bytes());
        at += size;
    }
}
