//! A plain TCP forwarder: the floor of what any proxy costs.

use crate::sys;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};

pub fn run(address: &str, upstream: &str) {
    let listener = sys::listen(address);
    let mut poll = sys::Poll::new();
    poll.add(listener.as_raw_fd(), u64::MAX);
    let mut peers: HashMap<RawFd, RawFd> = HashMap::new();
    let mut buffer = vec![0u8; 65536];
    loop {
        for (data, _) in poll.wait(None) {
            if data == u64::MAX {
                while let Some(near) = sys::accept(&listener) {
                    let far = sys::connect(upstream);
                    peers.extend([(near, far), (far, near)]);
                    poll.add(near, near as u64);
                    poll.add(far, far as u64);
                }
                continue;
            }
            let near = data as RawFd;
            let Some(&far) = peers.get(&near) else { continue };
            match sys::receive(near, &mut buffer) {
                None => {}
                Some(0) => {
                    peers.remove(&near);
                    peers.remove(&far);
                    sys::close(near);
                    sys::close(far);
                }
                Some(count) => {
                    let mut sent = 0;
                    while sent < count {
                        sent += sys::send(far, &buffer[sent..count]);
                    }
                }
            }
        }
    }
}
