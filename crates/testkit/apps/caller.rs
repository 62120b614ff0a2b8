//! An app for tests: says who it is, calls others from inside its container, and runs the programs that it holds.
//! Built as it is, with rustc alone.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    process::Command,
    thread,
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(20);

fn main() -> std::io::Result<()> {
    let own = |name: &str| env::var(name).unwrap_or_default();
    let listener = TcpListener::bind((own("HOST"), own("PORT").parse::<u16>().unwrap_or(0)))?;
    for stream in listener.incoming().flatten() {
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    let source = stream.peer_addr()?.ip().to_string();
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let path = first.split(' ').nth(1).unwrap_or("/");
    let own = |name: &str| env::var(name).unwrap_or_default();
    let answer = match path {
        "/" => format!("{} {} {} {source}", own("BASTIDE_APP"), own("BASTIDE_REPLICA"), own("BASTIDE_ZONE")),
        "/healthz" => "ok".to_owned(),
        // Each line of the body is an argument; the first is the program.
        "/run" => run(body.lines().collect::<Vec<_>>()),
        // `name:port`: what it leads to.
        "/find" => match body.to_socket_addrs() {
            Ok(found) => found.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" "),
            Err(error) => format!("error: {error}"),
        },
        // `name:port`: what answers GET / there, the last line of it.
        "/call" => call(&body).unwrap_or_else(|error| format!("error: {error}")),
        "/call-and-tell" => {
            let answer = call(&body).unwrap_or_else(|error| format!("error: {error}"));
            format!("{} {answer}", own("BASTIDE_ZONE"))
        }
        _ => "error: no such page".to_owned(),
    };
    let mut stream = stream;
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len())
}

fn run(words: Vec<&str>) -> String {
    let Some((program, arguments)) = words.split_first() else { return "error: nothing to run".to_owned() };
    match Command::new(program).args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        Err(error) => format!("error: {error}"),
    }
}

fn call(to: &str) -> std::io::Result<String> {
    let none = || std::io::Error::other("no address");
    let mut stream = TcpStream::connect_timeout(&to.to_socket_addrs()?.next().ok_or_else(none)?, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET / HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::Error::other("an empty answer"));
    }
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}
