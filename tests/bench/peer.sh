# Sets up both sides of the benchmark in the host: the application with a stop of one second, for tagship four services
# side by side, and the pipeline of shell steps, path unit and deploy script that people write without tagship.
set -eu
quadlets=~/.config/containers/systemd
# As PID 1 without a handler it ignores SIGTERM, as many applications do.
sed -i '/^trap/d' ~/src/demo/app
echo 'COPY version /version' >>~/src/demo/Containerfile
for role in web worker beat flower; do
    sed -i 's/^Pull=never/&\nStopTimeout=1/' $quadlets/demo-$role.container
    sed "s#demo#peer#g; s#^Image=.*#Image=registry.test:5000/chris/peer:stable#; /^Pull=/d; s#:8000:#:8001:#" \
        $quadlets/demo-$role.container >$quadlets/peer-$role.container
done
sed -i '/^  - /d; s/^services:.*/services: [[demo-web, demo-worker, demo-beat, demo-flower]]/' ~/.config/tagship/demo.yaml

mkdir -p ~/peer/data ~/.config/systemd/user
cat >~/peer/environment <<'S'
set -euo pipefail
IMAGE=registry.test:5000/chris/peer
export DOCKER_HOST=unix:///run/user/1000/podman/podman.sock DOCKER_CONFIG=~/peer/docker
S
mkdir -p ~/peer/docker && cp ~/ci-auth.json ~/peer/docker/config.json
cat >~/peer/build <<'S'
#!/bin/bash
. ~/peer/environment
rm -rf ~/build; cp -a ~/src/demo ~/build; cd ~/build; echo "shell-$1" >version
[[ -z ${SLOW:-} ]] || ~/peer/slow
docker build -q --build-arg BASE=localhost/base:1 --build-arg GIT_HASH=0123456 -f Containerfile -t "$IMAGE:$1" -t "$IMAGE:stable" .
S
# An application that is healthy three seconds after its start.
cat >~/peer/slow <<'S'
#!/bin/bash
sed -i '2i (sleep 3; touch /tmp/ready) \&' app
sed -i '2i [ -e /tmp/ready ] || exit 1' health
S
cat >~/peer/push <<'S'
#!/bin/bash
. ~/peer/environment
docker push -q "$IMAGE:$1"
docker push -q "$IMAGE:stable"
S
cat >~/peer/sign <<'S'
#!/bin/bash
. ~/peer/environment; . ~/ci.env
umask 077
key=$(mktemp)
printf '%s' "$TAGSHIP_KEY" >"$key"
digest=$(skopeo inspect --authfile ~/ci-auth.json --format '{{.Digest}}' "docker://$IMAGE:$1")
COSIGN_PASSWORD=$TAGSHIP_KEY_PASSWORD cosign sign --yes --tlog-upload=false --key "$key" "$IMAGE@$digest"
shred -u "$key"
S
cat >~/peer/handoff <<'S'
#!/bin/bash
cd ~/peer/data
rm -f status
printf '%s' "$1" >trigger
for _ in $(seq 60); do
    if [ -f status ]; then cat status; grep -q '^ok ' status; exit; fi
    sleep 5
done
exit 1
S
cat >~/peer/verify <<'S'
#!/bin/bash
. ~/peer/environment
digest=$(skopeo inspect --format '{{.Digest}}' "docker://$IMAGE:stable")
cosign verify --insecure-ignore-tlog=true --key /etc/containers/cosign-app.pub "$IMAGE@$digest" >/dev/null
S
cat >~/peer/deploy <<'S'
#!/bin/bash
. ~/peer/environment
digest=$(skopeo inspect --format '{{.Digest}}' "docker://$IMAGE:stable")
cosign verify --insecure-ignore-tlog=true --key /etc/containers/cosign-app.pub "$IMAGE@$digest" >/dev/null
podman pull -q "$IMAGE@$digest"
podman tag "$IMAGE@$digest" "$IMAGE:stable"
services=(peer-web peer-worker peer-beat peer-flower)
for service in "${services[@]}"; do systemctl --user restart "$service.service"; done
for service in "${services[@]}"; do
    deadline=$((SECONDS + 120))
    until [[ $(podman inspect --format '{{.State.Health.Status}}' "$service") == healthy ]]; do
        ((SECONDS < deadline)) || exit 1
        sleep 2
    done
done
S
cat >~/peer/answer <<'S'
#!/bin/bash
cd ~/peer/data || exit 1
tag=$(cat trigger)
rm -f trigger status
start=${EPOCHREALTIME/./}
if ~/peer/deploy; then verdict=ok; else verdict=fail; fi
echo $(((${EPOCHREALTIME/./} - start) / 1000)) >took
echo "$verdict $tag" >status
S
chmod +x ~/peer/*
# What a deploy of tagship's takes by its own account.
mkdir -p ~/.config/systemd/user/tagship@demo.service.d
printf '[Service]\nEnvironment=TAGSHIP_TRACE=%%h/trace.json\n' >~/.config/systemd/user/tagship@demo.service.d/trace.conf
printf '[Path]\nPathExists=%%h/peer/data/trigger\n' >~/.config/systemd/user/peer.path
printf '[Service]\nType=oneshot\nExecStart=%%h/peer/answer\n' >~/.config/systemd/user/peer.service
systemctl --user daemon-reload
systemctl --user start peer.path
