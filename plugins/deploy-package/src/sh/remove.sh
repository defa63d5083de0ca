# Removes releases that are no longer wanted: the arguments. What cannot be removed is no reason to fail.
for name; do
    rm -rf "${releases:?}/$name" && note "removed $name" || note "could not remove $releases/$name"
done
