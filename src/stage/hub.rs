//! A client of the Hugging Face hub that sends the token to no other server: [`Hub`].
//!
//! A hub redirects to other servers (large files are stored elsewhere), and whoever can
//! write to a repository, or runs a mirror, can redirect anywhere. So redirects are
//! followed here and not by the HTTP library: the token goes only to the endpoint's
//! scheme, host and port, and is no longer sent once a redirect has left it; and https
//! never falls back to http.

use std::io::Read;
use std::time::Duration;

use hf_hub::Repo;
use serde::Deserialize;
use url::Url;

/// The hub's default address.
const ENDPOINT: &str = "https://huggingface.co";
/// Redirects to a file.
const MOST_REDIRECTS: usize = 10;
/// Bytes of the hub's description of a repository: a hundred thousand files.
const MOST_OF_INFO: u64 = 32 << 20;
const CONNECT: Duration = Duration::from_secs(30);
/// How long a server may stay silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Why the hub gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The address of the hub is not one.
    #[error("`{endpoint}` is not the address of a hub: {why}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server refused.
    #[error("{url}: status code {code}")]
    Status {
        /// What was requested.
        url: String,
        /// Its answer.
        code: u16,
    },
    /// There was no answer.
    #[error("{url}: {why}")]
    Transport {
        /// What was requested.
        url: String,
        /// Why not.
        why: String,
    },
    /// A redirect that is not followed.
    #[error("{from} redirects to {to}, which is not followed: {why}")]
    Redirect {
        /// The redirecting address.
        from: String,
        /// Its target.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// The answer is not that of a hub.
    #[error("{url}: this is not the answer of a hub: {why}")]
    Answer {
        /// What was requested.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl HubError {
    /// The status code, if the server answered with one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether a retry may succeed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { code, .. } => *code >= 500 || *code == 429,
            _ => false,
        }
    }
}

/// The hub's description of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Info {
    /// The commit that the revision stands for.
    pub sha: String,
    /// Its files.
    pub siblings: Vec<Sibling>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sibling {
    /// Its path in the repository.
    pub rfilename: String,
}

/// A file, or a part of one.
pub struct Answer {
    /// The commit that it is of.
    pub commit: Option<String>,
    /// A name for its content.
    pub etag: Option<String>,
    /// Where in the file the bytes begin.
    pub first: u64,
    /// Size of the whole file, if the server sent it.
    pub total: Option<u64>,
    /// The bytes.
    pub body: Box<dyn Read + Send + Sync>,
}

/// A hub and the token to use.
pub struct Hub {
    endpoint: Url,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Hub {
    /// The hub at `endpoint`, else the Hugging Face hub.
    ///
    /// # Errors
    /// When that is not an address.
    pub fn new(endpoint: Option<&str>, token: Option<String>) -> Result<Self, HubError> {
        let endpoint = endpoint.unwrap_or(ENDPOINT).trim_end_matches('/');
        let fail = |why: String| HubError::Endpoint {
            endpoint: endpoint.to_owned(),
            why,
        };
        let url = Url::parse(endpoint).map_err(|e| fail(e.to_string()))?;
        if !is_http(&url) {
            return Err(fail("it begins with neither https:// nor http://".into()));
        }
        let agent = ureq::AgentBuilder::new()
            .try_proxy_from_env(true)
            .redirects(0)
            .timeout_connect(CONNECT)
            .timeout_read(SILENCE)
            .user_agent(concat!("genius/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            endpoint: url,
            token,
            agent,
        })
    }

    /// Its description of a repository at a revision.
    ///
    /// # Errors
    /// When it does not answer, or answers something else.
    pub fn info(&self, repo: &Repo) -> Result<Info, HubError> {
        let url = self.url(&format!("api/{}", repo.api_url()))?;
        let mut bytes = Vec::new();
        let fail = |why: String| HubError::Answer {
            url: url.to_string(),
            why,
        };
        self.get(&url, None)?
            .body
            .take(MOST_OF_INFO + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| HubError::Transport {
                url: url.to_string(),
                why: e.to_string(),
            })?;
        if bytes.len() as u64 > MOST_OF_INFO {
            return Err(fail(format!("it has more than {MOST_OF_INFO} bytes")));
        }
        serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string()))
    }

    /// A file of a repository, from a byte on; with `alone` only that byte.
    ///
    /// # Errors
    /// When the hub, or the server it redirects to, does not answer.
    pub fn file(
        &self,
        repo: &Repo,
        name: &str,
        first: u64,
        alone: bool,
    ) -> Result<Answer, HubError> {
        let path = format!("{}/resolve/{}/{name}", repo.url(), repo.url_revision());
        let range = if alone {
            format!("bytes={first}-{first}")
        } else {
            format!("bytes={first}-")
        };
        self.get(&self.url(&path)?, Some(&range))
    }

    fn url(&self, path: &str) -> Result<Url, HubError> {
        let base = self.endpoint.as_str().trim_end_matches('/');
        let text = format!("{base}/{path}");
        Url::parse(&text).map_err(|e| HubError::Endpoint {
            endpoint: text,
            why: e.to_string(),
        })
    }

    fn get(&self, url: &Url, range: Option<&str>) -> Result<Answer, HubError> {
        let mut url = url.clone();
        let mut at_home = true;
        let (mut commit, mut etag) = (None, None);
        for _ in 0..=MOST_REDIRECTS {
            at_home &= url.origin() == self.endpoint.origin();
            let mut request = self.agent.get(url.as_str());
            if let Some(token) = self.token.as_ref().filter(|_| at_home) {
                request = request.set("Authorization", &format!("Bearer {token}"));
            }
            if let Some(range) = range {
                request = request.set("Range", range);
            }
            let response = request.call().map_err(|e| match e {
                ureq::Error::Status(code, _) => HubError::Status {
                    url: shown(&url),
                    code,
                },
                ureq::Error::Transport(e) => HubError::Transport {
                    url: shown(&url),
                    why: e.to_string(),
                },
            })?;
            let header = |name: &str| response.header(name).map(str::to_owned);
            // The hub's own headers, not those of the server that stores the bytes.
            if at_home {
                commit = header("x-repo-commit").or(commit);
                etag = header("x-linked-etag").or_else(|| header("etag")).or(etag);
            }
            if !(300..400).contains(&response.status()) {
                let (first, total) = extent(&response);
                return Ok(Answer {
                    commit,
                    etag: etag.map(|etag| etag.replace('"', "")),
                    first,
                    total,
                    body: response.into_reader(),
                });
            }
            let Some(location) = header("location") else {
                return Err(HubError::Answer {
                    url: shown(&url),
                    why: "it redirects to nowhere".to_owned(),
                });
            };
            url = step(&url, &location)?;
        }
        Err(HubError::Answer {
            url: shown(&url),
            why: format!("more than {MOST_REDIRECTS} redirects"),
        })
    }
}

/// Where a redirect leads.
fn step(from: &Url, location: &str) -> Result<Url, HubError> {
    let refuse = |to: String, why| HubError::Redirect {
        from: shown(from),
        to,
        why,
    };
    let to = from
        .join(location)
        .map_err(|_| refuse(location.to_owned(), "it is not an address"))?;
    if !is_http(&to) {
        return Err(refuse(shown(&to), "it is neither https nor http"));
    }
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(refuse(
            shown(&to),
            "the connection would no longer be secure",
        ));
    }
    Ok(to)
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "https" | "http") && url.host().is_some()
}

/// An address without what may be secret in it: links to large files are signed.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    let _ = shown.set_password(None);
    let _ = shown.set_username("");
    shown.into()
}

/// Where the bytes begin, and how many the whole file has.
fn extent(response: &ureq::Response) -> (u64, Option<u64>) {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    if response.status() == 206
        && let Some(range) = response.header("content-range")
        && let Some((range, total)) = range.trim_start_matches("bytes").split_once('/')
        && let Some(first) = range.split('-').next().and_then(number)
    {
        return (first, number(total));
    }
    // A server that always sends the whole file.
    (0, response.header("content-length").and_then(number))
}

/// Whether a revision is a commit as the hub writes it, which needs no look-up: 40
/// digits of lowercase hex. Anything else is the name of a branch or tag.
pub fn is_commit(revision: &str) -> bool {
    let is_digit = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    revision.len() == 40 && revision.bytes().all(is_digit)
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
