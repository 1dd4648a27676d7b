//! Signatures by every program of the field, verified by every other: in the stack's registry, which has no referrers
//! API, and in one that has; with a transparency log and without.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod matrix;
mod odd_signatures;
mod together;

use std::process::ExitCode;

use tagship_tests::{Host, IMAGE, suite};

fn main() -> ExitCode {
    suite(boot, &[matrix::SCENARIOS, odd_signatures::SCENARIOS, together::SCENARIOS].concat())
}

/// Where the log listens in the host, and its public key.
const URL: &str = "http://127.0.0.1:3000";
const LOG_KEY: &str = "/etc/containers/rekor.pub";

/// The public half of the release key, `~/cosign.key`.
const KEY: &str = "/etc/containers/cosign-app.pub";

/// The image's repository in the registry that has the referrers API.
const REFERRERS_IMAGE: &str = "registry.test:5010/chris/demo";

fn boot() -> Host {
    let host = Host::boot("interop");
    host.tool("rekor", &["up", host.name()]).ok().says(URL);
    let (cosign3, registry) = (host.tool_in_host("cosign3"), host.tool_in_host("referrers"));
    host.root(&format!("ln -s {cosign3} /usr/local/bin/cosign3")).ok();
    second_registry(&host, &registry);
    podman(&host);
    // cosign 3 takes what it trusts and which services it uses from files; by itself it would ask for them at the public
    // instance. `other.key` is somebody else's.
    host.ci(&format!(
        "rekor=url={URL},start-time=2020-01-01T00:00:00Z
        cosign3 trusted-root create --out trusted-root.json --rekor $rekor,public-key={LOG_KEY}
        cosign3 signing-config create --out signing-config.json --rekor $rekor,api-version=1,operator=test --rekor-config ANY
        cosign3 signing-config create --out signing-config-no-log.json
        cosign generate-key-pair --output-key-prefix other"
    ))
    .ok();
    // The versions that docs/signatures.md speaks of.
    host.app("podman version; cosign3 version; dpkg-query --show cosign")
        .ok()
        .says("Version:       5.4.")
        .says("v3.1.1")
        .says("cosign\t2.5.0");
    host
}

/// A registry with the referrers API behind the same name, without accounts.
fn second_registry(host: &Host, program: &str) {
    host.root(&format!(
        "systemd-run --quiet --collect --unit=referrers -- {program} 127.0.0.1:5011
        cat >/etc/nginx/conf.d/referrers.conf <<'NGINX'
            server {{
              listen 127.0.0.1:5010 ssl;
              http2 on;
              server_name registry.test;
              ssl_certificate /etc/tls/server.pem;
              ssl_certificate_key /etc/tls/server.key;
              client_max_body_size 0;
              location / {{
                proxy_pass http://127.0.0.1:5011;
                proxy_http_version 1.1;
                proxy_set_header Host $http_host;
                proxy_set_header X-Forwarded-Proto https;
              }}
            }}
NGINX
        systemctl reload nginx
        # Neither tells when it is ready.
        timeout 60 bash -c 'until curl --silent --fail --output /dev/null https://registry.test:5010/v2/; do sleep 0.05; done'"
    ))
    .ok();
}

/// Where Podman finds signatures, and what it requires: one by the release key; one that the log has recorded, too.
fn podman(host: &Host) {
    let rule = |log: &str| {
        format!(r#"[{{"type":"sigstoreSigned","keyPath":"{KEY}",{log}"signedIdentity":{{"type":"matchRepository"}}}}]"#)
    };
    for (name, log) in [("policy", String::new()), ("policy-log", format!(r#""rekorPublicKeyPath":"{LOG_KEY}","#))] {
        let rule = rule(&log);
        host.root(&format!(
            r#"cat >/etc/containers/{name}.test.json <<'JSON'
{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{IMAGE}":{rule},"{REFERRERS_IMAGE}":{rule}}}}}}}
JSON"#
        ))
        .ok();
    }
    host.root(&format!(
        "mkdir -p /etc/containers/registries.d
        for image in {IMAGE} {REFERRERS_IMAGE}; do printf '  %s:\\n    use-sigstore-attachments: true\\n' $image; done |
          sed '1i docker:' >/etc/containers/registries.d/demo.yaml"
    ))
    .ok();
}
