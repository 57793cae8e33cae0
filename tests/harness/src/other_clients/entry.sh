#!/bin/sh
# One entry into this folder under the name $1. `order` gets a line: the own file, then the files of all who are inside.
# With `alone` as $2 the entry adds one to `count`. It reads and writes the number, so two at once lose an update. Every
# other entry lasts so long that others can come in.
own=inside/$1.$2
: >"$own"
[ "$2" != alone ] || read -r n <count
echo "$own" inside/* >>order
if [ "$2" = alone ]; then echo $((n + 1)) >count; else sleep 0.01; fi
rm "$own"
