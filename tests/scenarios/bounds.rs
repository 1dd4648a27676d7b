//! What a registry can make `tagship verify` hold at most: each bound on what is read, reached at the same time.

use tagship_tests::{Host, IMAGE, Scenario};

pub(crate) const SCENARIOS: &[Scenario] =
    &[("a_registry_that_fills_every_bound_fills_no_memory", a_registry_that_fills_every_bound)];

/// Most resident memory, in KiB; measured: 39 MiB, of which 24 are the payloads and the bundles.
const MOST: u64 = 64 * 1024;

/// Puts beside an image 128 payloads of 64 KiB, 1024 signatures of them in a list of nearly 1 MiB, and 64 bundles of
/// 256 KiB. Nobody who counts signed anything.
const FILL: &str = r##"
cd $(mktemp -d)
blob() {
  place=$(api registry.test:5000/v2/chris/demo/blobs/uploads/ -X POST -o /dev/null -D - | tr -d '\r' | sed -nE 's,^location: (https?://[^/]*)?,,Ip')
  api "registry.test:5000$place&digest=sha256:$(sha256sum $1 | cut -d' ' -f1)" -X PUT -H 'Content-Type: application/octet-stream' --data-binary @$1
}
# Lists of numbers: in memory a number is sixteen times as long as here.
for n in $(seq 100 227); do perl -e '$n = shift; print "[$n", ",0" x 32765, "]", " "' $n >payload$n; blob payload$n; done
for n in $(seq 100 163); do perl -e '$n = shift; print "[$n", ",0" x 131069, "]", " "' $n >bundle$n; blob bundle$n; done
printf '{}' >config; blob config
entries() { # KIND FIRST LAST TYPE COUNT ANNOTATIONS
  for n in $(seq $2 $3); do echo "$(sha256sum <$1$n | cut -d' ' -f1) $(stat -c %s $1$n)"; done |
    perl -e '($type, $count, $more) = @ARGV; @all = map { chomp; [split / /] } <STDIN>;
      print join ",", map { ($d, $s) = @{$all[$_ % @all]}; qq({"mediaType":"$type","size":$s,"digest":"sha256:$d"$more}) } 0 .. $count - 1' "$4" "$5" "$6"
}
config='{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:'$(sha256sum <config | cut -d' ' -f1)'"}'
filler=$(perl -e 'print "x" x 740')
signed=',"annotations":{"dev.cosignproject.cosign/signature":"MEUCIQ==","filler":"'$filler'"}'
{ printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[' $oci "$config"
  entries payload 100 227 application/vnd.dev.cosign.simplesigning.v1+json 1024 "$signed"; printf ']}'; } >list
test $(stat -c %s list) -gt 950000
put IMAGE SIGTAG $oci <list
{ printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"subject":{"mediaType":"%s","size":%s,"digest":"%s"},"layers":[' $oci "$config" $oci $(get IMAGE DIGEST | wc -c) DIGEST
  entries bundle 100 163 application/vnd.dev.sigstore.bundle.v0.3+json 64 ''; printf ']}'; } >referrer
put IMAGE bounds $oci <referrer
printf '{"schemaVersion":2,"mediaType":"%s","manifests":[{"mediaType":"%s","size":%s,"digest":"sha256:%s"}]}' $index $oci $(stat -c %s referrer) $(sha256sum <referrer | cut -d' ' -f1) |
  put IMAGE REFTAG $index
"##;

fn a_registry_that_fills_every_bound(host: &Host) {
    let image = host.unsigned();
    let fill = FILL
        .replace("IMAGE", IMAGE)
        .replace("SIGTAG", &image.signature_tag(".sig"))
        .replace("REFTAG", &image.signature_tag(""))
        .replace("DIGEST", &image.digest);
    host.ci(&fill).ok();
    // By getrusage(2) of the children (-1): ru_maxrss comes after two times of two words each.
    let ran = host.app(&format!(
        r#"perl -e '
            system(@ARGV); my $code = $? >> 8;
            my $usage = "\0" x 144;
            syscall(`uname -m` =~ /x86_64/ ? 98 : 165, -1, $usage) == 0 or die "getrusage: $!";
            print "\npeak ", (unpack "q5", $usage)[4], "\n"; exit $code' -- \
            tagship verify --image {IMAGE} --digest {} --public-key /etc/containers/cosign-app.pub --tlog false"#,
        image.digest
    ));
    let ran = ran.exits(5).says("none of its 1088 signatures counts");
    let peak: u64 = ran.text.lines().find_map(|line| line.strip_prefix("peak ")).unwrap().parse().unwrap();
    assert!(peak < MOST, "{peak} KiB\n{}", ran.text);
}
