//! The hub, as a small server on this machine: the requests it gets, with which
//! token, and what is asked the second time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;
use crate::model::testing::context;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// Serves one repository, `ada/tiny`, to those who have the token.
struct Hub {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    home: tempfile::TempDir,
}

/// A weights file with one value.
fn weights() -> Vec<u8> {
    let value = 1.0f32.to_le_bytes();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &value).unwrap();
    safetensors::serialize([("w", view)], None).unwrap()
}

impl Hub {
    fn new() -> Self {
        let files: BTreeMap<&str, Vec<u8>> = [
            (
                "config.json",
                br#"{"model_type": "llama", "eos_token_id": 2}"#.to_vec(),
            ),
            ("tokenizer.json", b"{}".to_vec()),
            ("tokenizer_config.json", b"{}".to_vec()),
            ("chat_template.jinja", b"{{ messages }}".to_vec()),
            ("model.safetensors", weights()),
            ("pytorch_model.bin", b"never fetched".to_vec()),
            ("onnx/model.safetensors", b"never fetched".to_vec()),
        ]
        .into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
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
                log.lock().unwrap().push(path.to_owned());
                stream.write_all(&answer(path, &lines, &files)).unwrap();
            }
        });
        Self {
            address,
            asked,
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn settings(&self, token: Option<&str>) -> FetchSettings {
        FetchSettings {
            hf_token: token.map(str::to_owned),
            hf_home: Some(self.home.path().to_owned()),
            hf_endpoint: Some(self.address.clone()),
            user_cache: None,
            python: "python3".into(),
            search_path: None,
        }
    }

    fn fetch(&self, repo: &str, token: Option<&str>) -> Result<PathBuf, Failure> {
        fetch(&context(), &self.settings(token), repo, COMMIT)
    }
}

fn answer(path: &str, lines: &[String], files: &BTreeMap<&str, Vec<u8>>) -> Vec<u8> {
    let reply = |status: &str, headers: &str, body: &[u8]| {
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        bytes
    };
    let header = |name: &str| {
        lines.iter().find_map(|l| {
            l.to_ascii_lowercase()
                .starts_with(name)
                .then(|| l[name.len()..].trim().to_owned())
        })
    };
    if header("authorization:").as_deref() != Some(&format!("Bearer {TOKEN}")) {
        return reply("401 Unauthorized", "", b"");
    }
    if path == format!("/api/models/ada/tiny/revision/{COMMIT}") {
        let siblings: Vec<_> = files
            .keys()
            .map(|f| serde_json::json!({ "rfilename": f }))
            .collect();
        let info = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
        return reply("200 OK", "", info.to_string().as_bytes());
    }
    let Some(body) = path
        .strip_prefix(&format!("/ada/tiny/resolve/{COMMIT}/"))
        .and_then(|f| files.get(f))
    else {
        return reply("404 Not Found", "", b"");
    };
    // hf-hub asks `bytes=0-0` for the size, then `bytes=N-`.
    let range = header("range:").unwrap_or_default();
    let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(body.len() - 1);
    let headers = format!(
        "Content-Range: bytes {first}-{last}/{}\r\nETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n",
        body.len(),
        path.replace('/', "-")
    );
    reply("206 Partial Content", &headers, &body[first..=last])
}

#[test]
fn what_a_model_is_made_of_is_fetched_once() {
    let hub = Hub::new();
    let snapshot = hub.fetch("ada/tiny", Some(TOKEN)).unwrap();
    assert!(
        snapshot.starts_with(hub.home.path().join("hub")),
        "in the cache that other tools share"
    );
    assert_eq!(
        std::fs::read(snapshot.join("model.safetensors")).unwrap(),
        weights()
    );
    let asked = hub.asked.lock().unwrap().clone();
    assert!(
        !asked
            .iter()
            .any(|p| p.contains("pytorch_model") || p.contains("onnx")),
        "{asked:?}"
    );

    assert_eq!(hub.fetch("ada/tiny", Some(TOKEN)).unwrap(), snapshot);
    assert_eq!(
        hub.asked.lock().unwrap().len(),
        asked.len(),
        "a commit that is there asks nothing"
    );
}

#[test]
fn a_snapshot_becomes_a_complete_folder() {
    let hub = Hub::new();
    let snapshot = hub.fetch("ada/tiny", Some(TOKEN)).unwrap();
    let out = tempfile::tempdir().unwrap();
    folder::copy(&context(), &snapshot, out.path()).unwrap();
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(out.path().join(name)).unwrap()).unwrap()
    };
    assert_eq!(
        json("generation_config.json")["eos_token_id"],
        2,
        "end tokens made explicit"
    );
    assert_eq!(
        json("tokenizer_config.json")["chat_template"],
        "{{ messages }}"
    );
    assert!(!out.path().join("model.safetensors").is_symlink());
}

#[test]
fn refusals_say_what_to_do() {
    let hub = Hub::new();
    let failure = hub.fetch("ada/tiny", None).unwrap_err();
    assert!(failure.hint.unwrap().contains("HF_TOKEN"));
    let failure = hub.fetch("ada/other", Some(TOKEN)).unwrap_err();
    assert!(failure.message.contains("ada/other"), "{failure}");
    assert!(failure.hint.unwrap().contains("`repo`"));
}

/// A server that keeps the bytes of a hub's large files, on another port: it gets no
/// token, and what it sends is bounded by the size that it declared.
#[test]
fn what_lies_elsewhere_is_fetched_without_the_token() {
    let hub = Hub::new();
    let (inner, seen) = (hub.address.clone(), Arc::new(Mutex::new(Vec::new())));
    let log = seen.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = format!("http://{}", listener.local_addr().unwrap());
    let bytes = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("http://{}", bytes.local_addr().unwrap());
    serve(bytes, move |lines| {
        log.lock().unwrap().extend(lines.to_vec());
        let mut body = weights();
        if lines[0].contains("too-much") {
            body.push(0);
        }
        let total = weights().len();
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Range: bytes 0-{}/{total}\r\n\r\n",
            total - 1
        );
        [head.as_bytes(), &body].concat()
    });
    let too_much = Arc::new(Mutex::new(false));
    let flag = too_much.clone();
    serve(listener, move |lines| {
        if lines[0].contains("model.safetensors") {
            let which = if *flag.lock().unwrap() {
                "too-much"
            } else {
                "bytes"
            };
            return format!(
                "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: {elsewhere}/{which}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"../../../{which}\"\r\n\r\n"
            )
            .into_bytes();
        }
        ask(&inner, lines)
    });
    let settings = FetchSettings {
        hf_endpoint: Some(front),
        ..hub.settings(Some(TOKEN))
    };
    let snapshot = fetch(&context(), &settings, "ada/tiny", COMMIT).unwrap();
    assert_eq!(
        std::fs::read(snapshot.join("model.safetensors")).unwrap(),
        weights()
    );
    let seen = seen.lock().unwrap().join("\n").to_ascii_lowercase();
    assert!(
        seen.contains("get /bytes") && !seen.contains("authorization"),
        "{seen}"
    );
    let blobs = hub.home.path().join("hub/models--ada--tiny/blobs");
    assert_eq!(
        std::fs::read_dir(blobs.parent().unwrap()).unwrap().count(),
        3
    );
    for entry in std::fs::read_dir(&blobs).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".part"), "{name}");
    }

    std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    *too_much.lock().unwrap() = true;
    let failure = fetch(&context(), &settings, "ada/tiny", COMMIT).unwrap_err();
    assert!(failure.message.contains("more than the"), "{failure}");
}

fn serve(listener: TcpListener, answer: impl Fn(&[String]) -> Vec<u8> + Send + 'static) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            if !lines.is_empty() {
                let _ = stream.write_all(&answer(&lines));
            }
        }
    });
}

/// The same request to another server.
fn ask(address: &str, lines: &[String]) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    write!(stream, "{}\r\n\r\n", lines.join("\r\n")).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut bytes).unwrap();
    bytes
}

#[test]
fn nothing_of_a_repository_becomes_a_path() {
    let hub = Hub::new();
    for (repo, revision) in [
        ("../../x", COMMIT),
        ("ada/tiny", "../../../x"),
        ("ada//tiny", COMMIT),
        ("ada/tiny?x=1", COMMIT),
        ("ada/tiny", "/etc/passwd"),
        ("ada/tiny", ""),
    ] {
        let failure = fetch(&context(), &hub.settings(Some(TOKEN)), repo, revision).unwrap_err();
        assert!(
            failure.message.contains("cannot be a repository"),
            "{failure}"
        );
    }
    assert!(hub.asked.lock().unwrap().is_empty());
    assert_eq!(file_name("0123abc"), "0123abc");
    for etag in ["", "../x", "a/b", "..", "a.part", "x".repeat(200).as_str()] {
        assert_eq!(file_name(etag).len(), 64, "{etag}");
    }
}
