#!/bin/sh
# Makes docker/secrets: a random password for each server, and the URLs that hold them. Never replaces a secret.
# Run it once before the first start: sh docker/make_secrets.sh
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets

# Files without a line's end: what reads them takes every byte. They are readable to the containers' own accounts, so
# the folder is what keeps others out.
write() {
    [ -e "$1" ] || { printf '%s' "$2" >"$1"; chmod 644 "$1"; echo "made docker/secrets/$1"; }
}
random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

write secret_key "$(random)"
write database_password "$(random)"
write broker_password "$(random)"
write milvus_password "$(random)"
write minio_password "$(random)"
write database_url "postgresql://checklane:$(cat database_password)@database:5432/checklane"
write broker_url "redis://:$(cat broker_password)@broker:6379/0"
write milvus_token "root:$(cat milvus_password)"
