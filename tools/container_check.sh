#!/usr/bin/env bash
# Builds packaging/container/Containerfile where no container engine runs: buildah in a chroot, as root, from a root file system
# that debootstrap makes; then starts the program in it. `tools/container_check.sh [FOLDER] [VOLUME...]`: FOLDER keeps what
# is made (default: a temporary one), VOLUMEs (as /etc/pip.conf:/etc/pip.conf:ro) are there while building.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$(mktemp -d)}
shift || true
volumes=()
for volume in "$@"; do volumes+=(-v "$volume"); done
export BUILDAH_ISOLATION=chroot
build=(buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs)

mkdir -p "$folder"
[ -d "$folder/base" ] || debootstrap --variant=minbase --include=ca-certificates bookworm "$folder/base" >/dev/null
rm -rf "$folder/context"
mkdir "$folder/context"
git -C "$repository" ls-files -z | tar -C "$repository" --null -T - -c | tar -C "$folder/context" -x
"$repository/.venv/bin/python" -m build --wheel -o "$folder/context/dist" "$folder/context" >/dev/null

container=$("${build[@]}" from scratch)
"${build[@]}" add -q "$container" "$folder/base" / >/dev/null
"${build[@]}" commit -q "$container" localhost/stratokit-base >/dev/null
"${build[@]}" rm "$container" >/dev/null
"${build[@]}" bud -q "${volumes[@]}" --build-arg BASE=localhost/stratokit-base -t stratokit \
    -f "$folder/context/packaging/container/Containerfile" "$folder/context"
container=$("${build[@]}" from --pull-never localhost/stratokit)
"${build[@]}" run "$container" -- /opt/stratokit/bin/stratokit --version
"${build[@]}" rm "$container" >/dev/null
