//! The backend: answers every request with a body of a fixed size, HTTP/1.1 or HTTP/2 by what the connection begins with.

use crate::{http2, sys};
use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

#[derive(Default)]
struct Connection {
    is_http2: bool,
    is_grpc: bool,
    received: Vec<u8>,
    out: Vec<u8>,
    window: http2::Window,
}

struct Answers {
    plain: Vec<u8>,
    framed: Vec<u8>,
    grpc: Vec<u8>,
}

const HEAD_END: &[u8] = b"\r\n\r\n";

impl Connection {
    fn took(&mut self, bytes: &[u8], answers: &Answers) {
        self.received.extend(bytes);
        if self.received.starts_with(http2::PREFACE) {
            self.received.drain(..http2::PREFACE.len());
            self.is_http2 = true;
            self.out.extend(http2::greeting());
        }
        if self.is_http2 {
            self.frames(answers);
            return;
        }
        // requests without bodies: each ends with its head
        while let Some(at) = self.received.windows(4).position(|window| window == HEAD_END) {
            if http2::PREFACE.starts_with(&self.received) {
                return;
            }
            self.received.drain(..at + 4);
            self.out.extend(&answers.plain);
        }
    }

    fn frames(&mut self, answers: &Answers) {
        let mut at = 0;
        while let Some((frame, size)) = http2::first(&self.received[at..]) {
            http2::courtesy(&frame, &mut self.out);
            self.window.took(&frame, &mut self.out);
            if frame.ends_stream() {
                let answer = if self.is_grpc { &answers.grpc } else { &answers.framed };
                http2::at_stream(answer, frame.stream, &mut self.out);
            }
            at += size;
        }
        self.received.drain(..at);
    }
}

pub fn run(addresses: &str, grpc: &str, size: usize) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
    let answers = Answers {
        plain: [head.as_bytes(), &vec![b'x'; size]].concat(),
        framed: http2::answer(size, false),
        grpc: http2::answer(size, true),
    };
    let mut poll = sys::Poll::new();
    let mut listeners: HashMap<RawFd, (TcpListener, bool)> = HashMap::new();
    for (address, is_grpc) in addresses.split(',').map(|one| (one, false)).chain([(grpc, true)]) {
        if !address.is_empty() {
            let listener = sys::listen(address);
            poll.add(listener.as_raw_fd(), listener.as_raw_fd() as u64);
            listeners.insert(listener.as_raw_fd(), (listener, is_grpc));
        }
    }
    serve(&mut poll, &listeners, &answers);
}

fn serve(poll: &mut sys::Poll, listeners: &HashMap<RawFd, (TcpListener, bool)>, answers: &Answers) -> ! {
    let mut connections: HashMap<RawFd, Connection> = HashMap::new();
    let mut buffer = vec![0u8; 65536];
    loop {
        for (data, events) in poll.wait(None) {
            let fd = data as RawFd;
            if let Some((listener, is_grpc)) = listeners.get(&fd) {
                while let Some(fd) = sys::accept(listener) {
                    connections.insert(fd, Connection { is_grpc: *is_grpc, ..Connection::default() });
                    poll.add(fd, fd as u64);
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&fd) else { continue };
            match sys::receive(fd, &mut buffer) {
                Some(0) => {
                    connections.remove(&fd);
                    sys::close(fd);
                    continue;
                }
                Some(count) => connection.took(&buffer[..count], answers),
                None => {}
            }
            let sent = sys::send(fd, &connection.out);
            connection.out.drain(..sent);
            if !connection.out.is_empty() || events & sys::WRITABLE != 0 {
                let further = if connection.out.is_empty() { 0 } else { sys::WRITABLE };
                poll.change(fd, fd as u64, sys::READABLE | further);
            }
        }
    }
}
