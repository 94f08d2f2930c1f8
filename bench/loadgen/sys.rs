//! What std does not offer: epoll with nanoseconds, raw reads and writes, CPU time of processes.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct RawEvent {
    events: u32,
    data: u64,
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

extern "C" {
    fn epoll_create1(flags: i32) -> i32;
    fn epoll_ctl(epoll: i32, operation: i32, fd: i32, event: *mut RawEvent) -> i32;
    fn epoll_pwait2(epoll: i32, events: *mut RawEvent, count: i32, timeout: *const Timespec, mask: *const u8) -> i32;
    fn prctl(option: i32, a: u64, b: u64, c: u64, d: u64) -> i32;
    fn read(fd: i32, buffer: *mut u8, count: usize) -> isize;
    fn write(fd: i32, buffer: *const u8, count: usize) -> isize;
}

pub const READABLE: u32 = 1;
pub const WRITABLE: u32 = 4;
const ADD: i32 = 1;
const CHANGE: i32 = 3;
const SET_TIMERSLACK: i32 = 29;

pub fn fail(why: &str) -> ! {
    eprintln!("loadgen: {why}");
    std::process::exit(3);
}

/// Readiness of descriptors, each with a number of the caller's.
pub struct Poll {
    fd: RawFd,
    events: [RawEvent; 256],
}

impl Poll {
    pub fn new() -> Poll {
        let fd = unsafe { epoll_create1(0) };
        if fd < 0 {
            fail("no epoll");
        }
        Poll { fd, events: [RawEvent { events: 0, data: 0 }; 256] }
    }

    pub fn add(&self, fd: RawFd, data: u64) {
        self.control(ADD, fd, data, READABLE);
    }

    pub fn change(&self, fd: RawFd, data: u64, events: u32) {
        self.control(CHANGE, fd, data, events);
    }

    fn control(&self, operation: i32, fd: RawFd, data: u64, events: u32) {
        let mut event = RawEvent { events, data };
        if unsafe { epoll_ctl(self.fd, operation, fd, &mut event) } < 0 {
            fail("epoll_ctl");
        }
    }

    /// Events until `nanoseconds` have passed; None waits for ever.
    pub fn wait(&mut self, nanoseconds: Option<i64>) -> Vec<(u64, u32)> {
        let timeout = nanoseconds.map(|nanoseconds| Timespec { seconds: 0, nanoseconds });
        let pointer = timeout.as_ref().map_or(std::ptr::null(), |timeout| timeout as *const Timespec);
        let count = unsafe { epoll_pwait2(self.fd, self.events.as_mut_ptr(), 256, pointer, std::ptr::null()) };
        self.events[..count.max(0) as usize].iter().map(|event| (event.data, event.events)).collect()
    }
}

/// Timers to the microsecond, not to the usual fifty.
pub fn sharp_timers() {
    unsafe { prctl(SET_TIMERSLACK, 1, 0, 0, 0) };
}

/// Bytes read; 0 at the end, None where there are none yet.
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> Option<usize> {
    let count = unsafe { read(fd, buffer.as_mut_ptr(), buffer.len()) };
    if count >= 0 {
        return Some(count as usize);
    }
    match std::io::Error::last_os_error().kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => None,
        _ => Some(0),
    }
}

/// Bytes written, which may be fewer.
pub fn send(fd: RawFd, bytes: &[u8]) -> usize {
    unsafe { write(fd, bytes.as_ptr(), bytes.len()) }.max(0) as usize
}

pub fn close(fd: RawFd) {
    drop(unsafe { TcpStream::from_raw_fd(fd) });
}

pub fn listen(address: &str) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| fail(&format!("{address}: {error}")));
    listener.set_nonblocking(true).unwrap_or_else(|error| fail(&error.to_string()));
    listener
}

pub fn accept(listener: &TcpListener) -> Option<RawFd> {
    listener.accept().ok().map(|(stream, _)| prepared(stream))
}

pub fn connect(address: &str) -> RawFd {
    prepared(TcpStream::connect(address).unwrap_or_else(|error| fail(&format!("{address}: {error}"))))
}

fn prepared(stream: TcpStream) -> RawFd {
    if stream.set_nodelay(true).and(stream.set_nonblocking(true)).is_err() {
        fail(&format!("{}: no such socket", stream.as_raw_fd()));
    }
    stream.into_raw_fd()
}

/// Nanoseconds all threads of a process have run.
pub fn cpu_of(pid: u32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { fail(&format!("no process {pid}")) };
    let times = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    times.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum()
}
