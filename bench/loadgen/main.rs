//! Load generator, echo server and relay of the data path's measurements: one thread each, std and libc's epoll.
//!
//!     loadgen load  -a ADDRESS [-c 64] [-r RPS | -r 0] [-d SECONDS] [-w SECONDS] [-p PID,PID] [-k http1|http2|grpc] [--close 1]
//!     loadgen echo  -l ADDRESS[,ADDRESS] [-g ADDRESS] [-s BYTES]
//!     loadgen relay -l ADDRESS -a ADDRESS
//!
//! `load` prints one JSON line. With -r it is paced and open: latency counts from the time a request was due. With -r 0
//! every connection asks again as soon as it has its answer. -p reads the CPU time of other processes at both edges of the
//! window, which is far steadier than any latency on shared cores.

mod echo;
mod http2;
mod load;
mod relay;
mod sys;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let option = |name: &str, otherwise: &str| -> String {
        let place = words.iter().position(|word| word == name);
        place.and_then(|at| words.get(at + 1)).cloned().unwrap_or(otherwise.to_string())
    };
    let number = |name: &str, otherwise: f64| -> f64 {
        option(name, &otherwise.to_string()).parse().unwrap_or_else(|_| sys::fail(&format!("{name} takes a number")))
    };
    match words.get(1).map(String::as_str) {
        Some("echo") => echo::run(&option("-l", ""), &option("-g", ""), number("-s", 1024.0) as usize),
        Some("relay") => relay::run(&option("-l", ""), &option("-a", "")),
        Some("load") => load::run(&load::Plan {
            address: option("-a", "127.0.0.1:8080"),
            connections: number("-c", 64.0) as usize,
            rate: number("-r", 0.0),
            seconds: number("-d", 4.0),
            warm: number("-w", 1.0),
            pids: option("-p", "").split(',').filter_map(|word| word.parse().ok()).collect(),
            kind: load::Kind::named(&option("-k", "http1")),
            closes: option("--close", "0") == "1",
            host: option("-H", "localhost"),
        }),
        _ => sys::fail("load, echo or relay?"),
    }
}
