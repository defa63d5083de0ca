# Extracts the archive under another name and renames it, so that a release folder is always a whole one.
extract_failed() {
    cat "$work/errors" >&2
    if grep -qi 'no space left\|disk quota' "$work/errors"; then
        give_up disk-full "the disk of $WINDLASS_INSTALL_DIR is full"
    fi
    give_up bad-archive "the archive of $WINDLASS_PACKAGE $WINDLASS_VERSION cannot be extracted: $(head -n 1 "$work/errors")"
}

extract_tar() {
    command -v tar >/dev/null 2>&1 || give_up no-tar "tar is not installed on this machine"
    # -o: files belong to whoever deploys, not to whoever packed.
    tar -xo"$1"f "$WINDLASS_ARCHIVE" -C "$partial" 2>"$work/errors" || extract_failed
}

extract_zip() {
    if command -v unzip >/dev/null 2>&1; then
        # 1 means warnings only.
        unzip -qq "$WINDLASS_ARCHIVE" -d "$partial" >"$work/errors" 2>&1 || [ $? -eq 1 ] || extract_failed
    elif command -v bsdtar >/dev/null 2>&1; then
        bsdtar -xof "$WINDLASS_ARCHIVE" -C "$partial" 2>"$work/errors" || extract_failed
    elif command -v python3 >/dev/null 2>&1; then
        python3 -m zipfile -e "$WINDLASS_ARCHIVE" "$partial" 2>"$work/errors" || extract_failed
    else
        give_up no-unzip "neither unzip nor bsdtar nor python3 is installed on this machine"
    fi
}

rm -rf "$releases"/.partial-*
partial=$releases/.partial-$WINDLASS_NAME
mkdir "$partial" || give_up no-folder "$partial cannot be created"
[ -r "$WINDLASS_ARCHIVE" ] || give_up no-archive "the archive $WINDLASS_ARCHIVE is not on this machine"
case $(od -An -tx1 -N4 "$WINDLASS_ARCHIVE" | tr -d ' \n') in
    504b0304 | 504b0506) extract_zip ;;
    1f8b*) extract_tar z ;;
    *) extract_tar '' ;;
esac
[ ! -e "$WINDLASS_FOLDER" ] || give_up in-use "$WINDLASS_FOLDER exists already: another deployment is at work there"
# Recorded first: a folder that the journal does not know would never be removed.
record installing
mv "$partial" "$WINDLASS_FOLDER" || give_up no-folder "$WINDLASS_FOLDER cannot be created"
note "extracted to $WINDLASS_FOLDER"
