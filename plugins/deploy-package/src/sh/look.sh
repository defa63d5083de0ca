# Tells what is in the install folder, one fact a line. Changes nothing.
set -u
case $WINDLASS_INSTALL_DIR in
    "~/"*) base=$HOME/${WINDLASS_INSTALL_DIR#"~/"} ;;
    *) base=$WINDLASS_INSTALL_DIR ;;
esac
printf 'base %s\n' "$base"
if [ -h "$base/current" ]; then
    printf 'current %s\n' "$(readlink "$base/current")"
elif [ -e "$base/current" ]; then
    printf 'blocked\n'
fi
for folder in "$base"/releases/*; do
    [ -d "$folder" ] && printf 'folder %s\n' "${folder##*/}"
done
[ -f "$base/.windlass/journal" ] && tail -n 1000 "$base/.windlass/journal" | sed 's/^/journal /'
# The file system that the folder is, or will be, on.
while [ ! -d "$base" ]; do base=$(dirname "$base"); done
set -- $(df -Pk "$base" 2>/dev/null | tail -n 1)
printf 'free %s\n' "${4:-unknown}"
