//! Connecting to an engine, to what is none, and to nothing.

use std::sync::{Arc, Mutex};

use bollard::query_parameters::{BuildImageOptions, PushImageOptions};
use futures_util::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// A socket that answers each request with `answer` and keeps the requests' heads.
fn engine(answer: &'static str) -> (tempfile::TempDir, PathBuf, Arc<Mutex<Vec<String>>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            if !head.is_empty() {
                seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (dir, path, heads)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK";

fn header(heads: &Arc<Mutex<Vec<String>>>, name: &str) -> Option<String> {
    let head = heads.lock().unwrap().pop().unwrap();
    head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
}

fn odd() -> Credential {
    Credential::Basic { user: "chris".into(), secret: "??>>~~ÿÿ?>~".to_owned().into() }
}

#[tokio::test]
async fn a_push_carries_its_password_in_the_alphabet_that_engines_read() {
    let (_dir, path, heads) = engine(OK);
    let docker = connect(Some(&path)).await.unwrap();
    let credentials = docker_credentials(&odd());
    let _ = docker.push_image("x", None::<PushImageOptions>, credentials.clone()).try_collect::<Vec<_>>().await;
    let value = header(&heads, "x-registry-auth").unwrap();
    assert!(!value.contains(['+', '/']), "{value}");
    let json = base64::engine::general_purpose::URL_SAFE.decode(value).unwrap();
    assert_eq!(serde_json::from_slice::<DockerCredentials>(&json).ok(), credentials);
}

#[tokio::test]
async fn a_build_carries_one_login_a_registry() {
    let (_dir, path, heads) = engine(OK);
    let docker = connect(Some(&path)).await.unwrap();
    let known = HashMap::from([("git.test".to_owned(), odd()), ("anonymous.test".to_owned(), Credential::Anonymous)]);
    let credentials = build_credentials(&known);
    let _ = docker
        .build_image(
            BuildImageOptions::default(),
            Some(credentials.clone()),
            Some(bollard::body_full(bytes::Bytes::new())),
        )
        .try_collect::<Vec<_>>()
        .await;
    let json = base64::engine::general_purpose::URL_SAFE.decode(header(&heads, "x-registry-config").unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<HashMap<String, DockerCredentials>>(&json).ok(), Some(credentials));
}

#[tokio::test]
async fn no_credentials_are_no_header() {
    let (_dir, path, heads) = engine(OK);
    let docker = connect(Some(&path)).await.unwrap();
    let _ = docker.push_image("x", None::<PushImageOptions>, None).try_collect::<Vec<_>>().await;
    assert_eq!(header(&heads, "x-registry-auth"), None);
    let none = Some(build_credentials(&HashMap::new()));
    let _ = docker
        .build_image(BuildImageOptions::default(), none, Some(bollard::body_full(bytes::Bytes::new())))
        .try_collect::<Vec<_>>()
        .await;
    assert_eq!(header(&heads, "x-registry-config"), None);
}

#[tokio::test]
async fn what_is_no_engine_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let kind = async |path: &Path| connect(Some(path)).await.err().map(|error| error.kind());
    assert_eq!(kind(&dir.path().join("none.sock")).await, Some("engine-missing"));

    let file = dir.path().join("file.sock");
    std::fs::write(&file, "").unwrap();
    assert_eq!(kind(&file).await, Some("engine-not-running"));

    let dead = dir.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    assert_eq!(kind(&dead).await, Some("engine-not-running"));

    for answer in ["SSH-2.0-x\r\n", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"] {
        let (_dir, path, _) = engine(answer);
        assert_eq!(kind(&path).await, Some("engine-unknown"));
    }
}

#[test]
fn variables_name_the_socket() {
    let found = |set: &[(&str, &str)]| {
        find(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    };
    assert_eq!(
        found(&[("DOCKER_HOST", "unix:///a.sock"), ("CONTAINER_HOST", "unix:///b.sock")]).unwrap(),
        Path::new("/a.sock")
    );
    assert_eq!(found(&[("CONTAINER_HOST", "/b.sock")]).unwrap(), Path::new("/b.sock"));
    for value in ["tcp://127.0.0.1:2375", "ssh://host", "unix://relative"] {
        assert_eq!(found(&[("DOCKER_HOST", value)]).unwrap_err().kind(), "engine-not-local");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("podman")).unwrap();
    std::fs::write(dir.path().join("podman/podman.sock"), "").unwrap();
    let runtime = dir.path().to_str().unwrap();
    assert_eq!(found(&[("XDG_RUNTIME_DIR", runtime)]).unwrap(), dir.path().join("podman/podman.sock"));
}
