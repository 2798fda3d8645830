# Reads commands from the terminal and answers; keeps state between them.
count=0
trap 'echo interrupted; count=100' INT
echo hello
: > ready
while read -r word; do
	count=$((count + 1))
	if [ "$word" = end ]; then
		exit 12
	fi
	echo "$count $word $(tput cols 2>/dev/null || echo ?)"
done
echo lost the terminal
