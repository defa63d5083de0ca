# What every part of an installation uses. The names in capitals come from the environment.
set -u
releases=$WINDLASS_INSTALL_DIR/releases
state=$WINDLASS_INSTALL_DIR/.windlass
work=$state/work
switched=no

note() { printf '[deploy-package] %s\n' "$*"; }

# record STATE: one line of the journal of installs.
record() {
    [ -d "$state" ] || return 0
    printf '%s\t%s\t%s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" "$WINDLASS_JOURNAL_ENTRY" >>"$state/journal"
}

# point_current NAME: makes `current` mean that release. Renaming a link over the old one is atomic; the option that
# stops `mv` from moving it into the folder behind the old link is -T here and -h elsewhere.
point_current() {
    new=$WINDLASS_INSTALL_DIR/.current-new
    rm -f "$new" && ln -s "releases/$1" "$new" || return 1
    mv -Tf "$new" "$WINDLASS_INSTALL_DIR/current" 2>/dev/null && return 0
    mv -hf "$new" "$WINDLASS_INSTALL_DIR/current" 2>/dev/null && return 0
    rm -f "$new"
    ln -sfn "releases/$1" "$WINDLASS_INSTALL_DIR/current"
}

# run_file FILE: runs it in the folder of this release.
run_file() {
    if [ -x "$1" ]; then (cd "$WINDLASS_FOLDER" && exec "$1"); else (cd "$WINDLASS_FOLDER" && exec sh "$1"); fi
}

# hook TITLE FILE: runs a script of the step or of the package, if there is one.
hook() {
    [ -f "$2" ] || return 0
    note "running $1"
    run_file "$2"
    code=$?
    [ "$code" -eq 0 ] || give_up hook-failed "$1 ended with exit code $code"
}

# give_up CODE TEXT: leaves `current` as it was before, lets the package clean up, and ends.
give_up() {
    WINDLASS_ERROR=$2
    export WINDLASS_ERROR
    if [ "$switched" = yes ]; then
        if [ -n "$WINDLASS_PREVIOUS_NAME" ]; then
            point_current "$WINDLASS_PREVIOUS_NAME" && note "current is $WINDLASS_PREVIOUS_NAME again"
        else
            rm -f "$WINDLASS_INSTALL_DIR/current"
        fi
    fi
    for file in "$WINDLASS_FOLDER/DeployFailed.sh" "$work/deploy_failed.sh"; do
        [ -f "$file" ] || continue
        note "running ${file##*/}"
        run_file "$file" || note "${file##*/} ended with exit code $?"
    done
    record failed
    note "failed $1 $2"
    exit 1
}

make_folders() {
    mkdir -p "$releases" "$state" && rm -rf "$work" && (umask 077 && mkdir "$work") && return 0
    give_up no-folder "$WINDLASS_INSTALL_DIR cannot be written by $(id -un)"
}
trap 'rm -rf "$work"' EXIT
make_folders
