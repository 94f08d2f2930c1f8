//! The client: connections that ask one request at a time, paced or as fast as answers come.

use crate::{http2, sys};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Http1,
    Http2,
    Grpc,
}

impl Kind {
    pub fn named(name: &str) -> Kind {
        match name {
            "http1" => Kind::Http1,
            "http2" => Kind::Http2,
            "grpc" => Kind::Grpc,
            _ => sys::fail("-k takes http1, http2 or grpc"),
        }
    }
}

pub struct Plan {
    pub address: String,
    pub connections: usize,
    /// Requests per second; 0: closed loop.
    pub rate: f64,
    pub seconds: f64,
    pub warm: f64,
    pub pids: Vec<u32>,
    pub kind: Kind,
    pub closes: bool,
    pub host: String,
}

struct Connection {
    fd: Option<RawFd>,
    since: Instant,
    received: Vec<u8>,
    stream: u32,
    is_good: bool,
    payload: usize,
    window: http2::Window,
}

/// An answer that is complete: whether it is what was asked for.
type Complete = Option<bool>;

impl Connection {
    fn new() -> Connection {
        let since = Instant::now();
        Connection {
            fd: None,
            since,
            received: vec![],
            stream: 0,
            is_good: false,
            payload: 0,
            window: http2::Window::default(),
        }
    }

    fn open(&mut self, plan: &Plan, poll: &sys::Poll, number: usize) -> RawFd {
        if let Some(fd) = self.fd {
            return fd;
        }
        let fd = sys::connect(&plan.address);
        poll.add(fd, number as u64);
        if plan.kind != Kind::Http1 {
            write(fd, &[http2::PREFACE, &http2::greeting()].concat());
        }
        *self = Connection { fd: Some(fd), ..Connection::new() };
        fd
    }

    fn ask(&mut self, plan: &Plan, poll: &sys::Poll, number: usize, request: &[u8], since: Instant) {
        // before the connection is made: with a new one per request its cost is part of the answer's time
        let fd = self.open(plan, poll, number);
        self.since = since;
        if plan.kind == Kind::Http1 {
            return write(fd, request);
        }
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        (self.is_good, self.payload) = (false, 0);
        let mut bytes = Vec::with_capacity(request.len());
        http2::at_stream(request, self.stream, &mut bytes);
        write(fd, &bytes);
    }

    fn took(&mut self, bytes: &[u8], kind: Kind) -> Complete {
        self.received.extend(bytes);
        if kind == Kind::Http1 {
            self.http1()
        } else {
            self.http2(kind)
        }
    }

    fn http1(&mut self) -> Complete {
        let head = self.received.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&self.received[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let Some(length) = length.and_then(|value| value.trim().parse::<usize>().ok()) else {
            sys::fail(&format!("no content-length: {text}"))
        };
        if self.received.len() < head + 4 + length {
            return None;
        }
        let is_good = text.starts_with("http/1.1 200");
        self.received.clear();
        Some(is_good)
    }

    fn http2(&mut self, kind: Kind) -> Complete {
        let (mut at, mut out, mut complete) = (0, vec![], None);
        while let Some((frame, size)) = http2::first(&self.received[at..]) {
            http2::courtesy(&frame, &mut out);
            self.window.took(&frame, &mut out);
            at += size;
            if frame.kind == http2::GO_AWAY {
                sys::fail("the other side goes away");
            }
            if frame.stream != self.stream {
                continue;
            }
            match frame.kind {
                http2::HEADERS if self.payload == 0 => self.is_good = frame.payload.first() == Some(&http2::STATUS_200),
                http2::DATA => self.payload += frame.payload.len(),
                http2::RESET => complete = Some(false),
                _ => {}
            }
            if frame.ends_stream() {
                // gRPC's answer without a body is a failure with status 200
                complete = Some(self.is_good && (kind != Kind::Grpc || self.payload > 5));
            }
        }
        self.received.drain(..at);
        if let (Some(fd), false) = (self.fd, out.is_empty()) {
            write(fd, &out);
        }
        complete
    }

    fn close(&mut self) {
        if let Some(fd) = self.fd.take() {
            sys::close(fd);
        }
    }
}

fn write(fd: RawFd, bytes: &[u8]) {
    if sys::send(fd, bytes) != bytes.len() {
        sys::fail("a request could not be sent");
    }
}

/// The measured seconds.
struct Window {
    began: Instant,
    cpu: Vec<u64>,
    own: u64,
}

#[derive(Default)]
struct Count {
    latencies: Vec<u32>,
    errors: u64,
}

pub fn run(plan: &Plan) {
    sys::sharp_timers();
    let request = match plan.kind {
        Kind::Http1 => format!("GET / HTTP/1.1\r\nhost: {}\r\nuser-agent: loadgen\r\n\r\n", plan.host).into_bytes(),
        kind => http2::request(&plan.host, kind == Kind::Grpc),
    };
    let mut poll = sys::Poll::new();
    let mut connections: Vec<Connection> = (0..plan.connections).map(|_| Connection::new()).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.open(plan, &poll, number);
    }
    let mut free: VecDeque<usize> = (0..plan.connections).collect();
    let (mut count, mut window, mut sent) = (Count::default(), None::<Window>, 0u32);
    let mut buffer = vec![0u8; 65536];
    let began = Instant::now();
    loop {
        let now = Instant::now();
        match &window {
            None if now - began >= Duration::from_secs_f64(plan.warm) => {
                window = Some(opened(plan));
                count = Count::default();
            }
            Some(window) if now.saturating_duration_since(window.began).as_secs_f64() >= plan.seconds => break,
            _ => {}
        }
        let mut pause = Duration::from_millis(20);
        loop {
            let due = if plan.rate > 0.0 { began + Duration::from_secs_f64(f64::from(sent) / plan.rate) } else { now };
            if due > now {
                pause = pause.min(due - now);
                break;
            }
            let Some(number) = free.pop_front() else { break };
            let since = if plan.rate > 0.0 { due } else { Instant::now() };
            connections[number].ask(plan, &poll, number, &request, since);
            sent += 1;
        }
        for (number, _) in poll.wait(Some(pause.as_nanos() as i64)) {
            let number = number as usize;
            let connection = &mut connections[number];
            let Some(fd) = connection.fd else { continue };
            let Some(size) = sys::receive(fd, &mut buffer) else { continue };
            if size == 0 {
                sys::fail(&format!("connection {number} was closed after {} answers", count.latencies.len()));
            }
            if let Some(is_good) = connection.took(&buffer[..size], plan.kind) {
                count.errors += u64::from(!is_good);
                count.latencies.push(connection.since.elapsed().as_nanos().min(u128::from(u32::MAX)) as u32);
                free.push_back(number);
                if plan.closes {
                    connection.close();
                }
            }
        }
    }
    if let Some(window) = window {
        println!("{}", told(plan, &window, count));
    }
}

fn opened(plan: &Plan) -> Window {
    let cpu = plan.pids.iter().map(|pid| sys::cpu_of(*pid)).collect();
    Window { cpu, own: sys::cpu_of(std::process::id()), began: Instant::now() }
}

fn told(plan: &Plan, window: &Window, mut count: Count) -> String {
    let seconds = window.began.elapsed().as_secs_f64();
    let own = sys::cpu_of(std::process::id());
    let cpu: Vec<u64> = plan.pids.iter().map(|pid| sys::cpu_of(*pid)).collect();
    count.latencies.sort_unstable();
    let requests = count.latencies.len();
    let at = |share: f64| -> f64 {
        let place = (requests.saturating_sub(1) as f64 * share) as usize;
        count.latencies.get(place).map_or(0.0, |nanoseconds| f64::from(*nanoseconds) / 1000.0)
    };
    let each = |before: u64, after: u64| (after - before) as f64 / 1000.0 / requests.max(1) as f64;
    let cpu: Vec<String> =
        window.cpu.iter().zip(cpu).map(|(before, now)| format!("{:.2}", each(*before, now))).collect();
    format!(
        "{{\"requests\":{requests},\"errors\":{},\"rps\":{:.1},\"p50\":{:.1},\"p90\":{:.1},\"p99\":{:.1},\"cpu\":[{}],\"own\":{:.2}}}",
        count.errors,
        requests as f64 / seconds,
        at(0.5),
        at(0.9),
        at(0.99),
        cpu.join(","),
        each(window.own, own),
    )
}
