//! Two servers of this machine, of which one redirects to the other: who gets the
//! token.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use hf_hub::RepoType;

use super::*;

/// What a server was asked: path, and the header with the token.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

struct Server {
    port: u16,
    asked: Asked,
}

impl Server {
    /// Answers with what `answer` makes of a path: status line, headers, body.
    fn new(answer: impl Fn(&str) -> (String, String, Vec<u8>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else {
                    continue;
                };
                let token = lines.iter().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("authorization")
                        .then(|| value.trim().to_owned())
                });
                log.lock().unwrap().push((path.to_owned(), token));
                let (status, headers, body) = answer(path);
                let head = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&body);
            }
        });
        Self { port, asked }
    }

    /// One that keeps bytes for a hub.
    fn with_bytes() -> Self {
        Self::new(|_| {
            (
                "206 Partial Content".into(),
                "Content-Range: bytes 0-4/5\r\n".into(),
                b"bytes".to_vec(),
            )
        })
    }

    /// A hub that sends everyone to that address.
    fn redirecting(to: String) -> Self {
        let headers = format!(
            "Location: {to}\r\nX-Repo-Commit: {}\r\nX-Linked-Etag: \"abc\"\r\n",
            "c".repeat(40)
        );
        Self::new(move |_| ("302 Found".into(), headers.clone(), Vec::new()))
    }

    fn at(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port)
    }

    fn hub(&self) -> Hub {
        Hub::new(Some(&self.at("127.0.0.1")), Some("hf_secret".to_owned())).unwrap()
    }

    fn tokens(&self) -> Vec<Option<String>> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(_, token)| token.clone()).collect()
    }
}

fn repo() -> Repo {
    Repo::with_revision("ada/tiny".into(), RepoType::Model, "main".into())
}

fn text(answer: Answer) -> String {
    let mut text = String::new();
    let mut body = answer.body;
    body.read_to_string(&mut text).unwrap();
    text
}

const TOKEN: &str = "Bearer hf_secret";

#[test]
fn a_token_goes_to_no_other_server() {
    // Another port of the same host, and another name of the same machine.
    for host in ["127.0.0.1", "localhost"] {
        let other = Server::with_bytes();
        let hub = Server::redirecting(format!("{}/signed?key=1", other.at(host)));
        for alone in [true, false] {
            let answer = hub.hub().file(&repo(), "config.json", 0, alone).unwrap();
            assert_eq!(answer.commit.as_deref(), Some(&*"c".repeat(40)));
            assert_eq!(
                (answer.etag.as_deref(), answer.total),
                (Some("abc"), Some(5))
            );
            assert_eq!(text(answer), "bytes", "and the file is there all the same");
        }
        assert_eq!(
            hub.tokens(),
            [Some(TOKEN.to_owned()), Some(TOKEN.to_owned())]
        );
        assert_eq!(other.tokens(), [None, None], "to {host}");
    }
}

#[test]
fn what_is_asked_of_a_repository_keeps_the_token() {
    let info = format!("{{\"sha\":\"{}\",\"siblings\":[]}}", "c".repeat(40));
    let other = Server::new(move |_| ("200 OK".into(), String::new(), info.clone().into_bytes()));
    let hub = Server::redirecting(format!("{}/info", other.at("127.0.0.1")));
    assert_eq!(hub.hub().info(&repo()).unwrap().sha, "c".repeat(40));
    assert_eq!(other.tokens(), [None]);
}

#[test]
fn a_redirect_within_the_hub_keeps_its_token() {
    let hub = Server::new(|path| match path {
        "/there" => (
            "206 Partial Content".into(),
            "Content-Range: bytes 0-4/5\r\nETag: \"e\"\r\n".into(),
            b"bytes".to_vec(),
        ),
        _ => (
            "307 Temporary Redirect".into(),
            "Location: /there\r\n".into(),
            Vec::new(),
        ),
    });
    let answer = hub.hub().file(&repo(), "config.json", 0, false).unwrap();
    assert_eq!(answer.etag.as_deref(), Some("e"));
    assert_eq!(
        hub.tokens(),
        [Some(TOKEN.to_owned()), Some(TOKEN.to_owned())]
    );
}

/// Whoever was led away may not lead back with the token in hand.
#[test]
fn once_led_away_the_token_stays_home() {
    let home = Arc::new(Mutex::new(String::new()));
    let back = Arc::clone(&home);
    let other = Server::new(move |_| {
        let headers = format!("Location: {}/steal\r\n", back.lock().unwrap());
        ("302 Found".into(), headers, Vec::new())
    });
    let away = other.at("127.0.0.1");
    let hub = Server::new(move |path| match path {
        "/steal" => ("200 OK".into(), String::new(), b"x".to_vec()),
        _ => (
            "302 Found".into(),
            format!("Location: {away}/away\r\n"),
            Vec::new(),
        ),
    });
    *home.lock().unwrap() = hub.at("127.0.0.1");
    hub.hub().file(&repo(), "config.json", 0, false).unwrap();
    assert_eq!(hub.tokens(), [Some(TOKEN.to_owned()), None]);
    assert_eq!(other.tokens(), [None]);
}

#[test]
fn redirects_without_end_are_refused() {
    let hub = Server::redirecting("/again".to_owned());
    let error = hub
        .hub()
        .file(&repo(), "config.json", 0, false)
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("more than 10 redirects"),
        "{error}"
    );
}

#[test]
fn a_secure_connection_stays_secure() {
    let from = Url::parse("https://hub.example/ada/tiny?key=secret").unwrap();
    let refused = |location: &str| step(&from, location).unwrap_err().to_string();
    assert_eq!(
        refused("http://hub.example/x?sig=secret"),
        "https://hub.example/ada/tiny redirects to http://hub.example/x, which is not followed: \
         the connection would no longer be secure"
    );
    assert!(refused("file:///etc/passwd").contains("neither https nor http"));
    assert!(refused("ftp://hub.example/x").contains("neither https nor http"));
    assert!(refused("https://[").contains("not an address"));
    for location in ["/x", "//cdn.example/x", "https://cdn.example/x", "x"] {
        assert!(step(&from, location).is_ok(), "{location}");
    }
    let plain = Url::parse("http://127.0.0.1:1/x").unwrap();
    assert!(step(&plain, "https://cdn.example/x").is_ok());
}

#[test]
fn an_answer_without_end_is_refused() {
    let hub = Server::new(|_| {
        let body = vec![b' '; usize::try_from(MOST_OF_INFO).unwrap() + 10];
        ("200 OK".into(), String::new(), body)
    });
    let error = hub.hub().info(&repo()).unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
}

#[test]
fn only_an_address_is_an_endpoint() {
    for endpoint in ["", "hub.example", "file:///etc", "ftp://hub.example"] {
        assert!(Hub::new(Some(endpoint), None).is_err(), "{endpoint}");
    }
    assert!(Hub::new(Some("https://hub.example/mirror/"), None).is_ok());
    assert!(Hub::new(None, None).is_ok());
}

#[test]
fn a_commit_is_written_in_lowercase_hex() {
    assert!(is_commit(&"0a".repeat(20)));
    for not in [
        "0A".repeat(20),
        "0a".repeat(19),
        "0a".repeat(21),
        "0g".repeat(20),
    ] {
        assert!(!is_commit(&not), "{not}");
    }
}
