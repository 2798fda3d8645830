/*
 * commands.c - the commands, and what is said about each.
 */
#include "engine/cli/cli.h"

static const char dump_help[] =
	"The tree is stopped for as short as possible (the report says how long), and goes on\n"
	"running afterwards unless --kill is given. If anything cannot be saved, fsnap says what\n"
	"it is and touches nothing.\n"
	"\n"
	"Of a tree that holds much memory (more than 64 MiB, or --live; of one that is tracked: if more than\n"
	"1 MiB has changed) most is copied before, while it runs, and what it writes meanwhile is copied\n"
	"again, as long as that becomes less: it stands still for the rest. The image is its state at that\n"
	"one instant. --max-freeze goes on for longer, or ends sooner; what would still take too long is\n"
	"shared with children that keep it as it is (copy-on-write), and copied when the tree runs again,\n"
	"if that takes less.\n"
	"Whether the time could be kept, and why not, is in the report.\n"
	"\n"
	"TCP connections between members of the tree are saved with all that is under way. Those\n"
	"to the outside come back as reset by the peer (--tcp reset, the default), which every\n"
	"network program is prepared for, or they are kept (--tcp keep, as root): with --kill the\n"
	"packets of exactly these connections are held back by a table of nftables named fsnap-*,\n"
	"from the freeze until they run again. `fsnap rm` gives them up with their image; so does\n"
	"deleting the table. Peers wait as long as their own timeouts allow.\n"
	"\n"
	"Files are not saved, only where they are; --with DIR takes a directory along, as it is at\n"
	"the moment at which the tree is saved (again for more). It lies in the store, beside the image.\n"
	"\n"
	"With --compress, --encrypt the image is stored compressed, encrypted: once the tree runs again,\n"
	"so that it stands still no longer. Until then pages lie in memory, which must have room for them.\n"
	"KEY is a file of `fsnap keygen --secret`, or `passphrase`, which is asked for, or\n"
	"`passphrase:FILE`, whose first line is one. --decrypt, or $FSNAP_KEY, tells other commands the\n"
	"same. Names of images and their size stay readable, and which builds on which.\n"
	"\n"
	"An image holds what a core file would, and more. --leave-out dontdump does without private memory\n"
	"that programs keep out of core files (MADV_DONTDUMP): zeroes come back, for which they must be\n"
	"prepared. --respect-core-limit refuses a tree if of one of its processes no core file may be\n"
	"made: its hard RLIMIT_CORE is 0, or PR_SET_DUMPABLE says so.\n"
	"\n"
	"Examples:\n"
	"  fsnap dump -t 1234                   save process 1234 and all its descendants\n"
	"  fsnap dump -t $(pgrep -o redis-server) --name filled\n"
	"                                       a database with its data, to start from again\n"
	"  fsnap dump -t $(head -1 /srv/db/postmaster.pid) --with /srv/db --name filled\n"
	"                                       the same database each time it is restored\n"
	"  fsnap dump -t 1234 --kill            move it away: save, then end it\n"
	"  fsnap dump -t 1234 --external 7=journal\n"
	"                                       descriptor 7 leads to a process that stays outside;\n"
	"                                       a restore is told by --external journal=M what to use\n"
	"  fsnap dump -t 1234 --kill --tcp keep\n"
	"                                       its clients wait meanwhile, and notice nothing\n"
	"  fsnap dump -t 1234 --json | jq .frozen_us\n";

static const char restore_help[] =
	"IMAGE is a name in the store, or a path (anything with a slash). Without IMAGE, it is the\n"
	"newest. The tree comes back with its process IDs, which must be free, and with this\n"
	"terminal as its own. fsnap then stands in for it: signals go to the tree, Ctrl-C and\n"
	"Ctrl-Z do what they always do (in a PID namespace of its own Ctrl-Z does nothing), and fsnap ends as\n"
	"the tree ends, with its exit status. If\n"
	"the restore itself fails, the exit status is 125 and nothing is left running.\n"
	"\n"
	"An image is not used up: restore it as often as you like.\n"
	"\n"
	"Files are not in the image, only where they are. If one has moved, say so with --map; the\n"
	"longest OLD that fits a path is taken. A descriptor can be replaced altogether (--fd).\n"
	"Whatever was the same open file in the tree becomes the same open file again. If files have\n"
	"changed, programs and libraries (by their build IDs) are refused and data files are told of;\n"
	"--changed says otherwise for both.\n"
	"\n"
	"Directories that were saved with the tree (dump --with) are put back first, where they were or,\n"
	"with --with OLD=NEW, elsewhere. If what is there is not as it was saved, that is refused unless\n"
	"--with-overwrite is given. Files that are as they were are not touched.\n"
	"\n"
	"TCP connections to the outside go on where they stood if the image was made with --tcp\n"
	"keep and their packets have been held back since then: the first time, that is. Else, or\n"
	"with --tcp reset, they come back as reset by the peer. --tcp keep tries it in any case.\n"
	"\n"
	"The tree lives in the control groups of fsnap, as anything that is started here, unless it is\n"
	"to have its own: --cgroup rejoin, where they exist; --cgroup create also makes those that are\n"
	"gone, with the limits they had.\n"
	"\n"
	"CLOCK_MONOTONIC and CLOCK_BOOTTIME never go back for a program: in the same boot it sees\n"
	"that time has passed, as if it had been stopped; after another boot, or elsewhere, they go\n"
	"on where they stood, through a time namespace. --clocks go-on wants that in any case, and\n"
	"--clocks machine in none. Timers have the same time left either way.\n"
	"\n"
	"Copies: with --new-pids the tree gets other process numbers than it had and can run beside its\n"
	"original; who may not choose numbers gets new ones in any case. A program that remembers numbers\n"
	"of its children in variables knows the old ones: --pid-ns gives the copy a PID namespace, in\n"
	"which they are right. --clones N makes N copies at once, all or none, after looking whether the\n"
	"limits on processes, memory and open files have room for them. What is in use can be moved:\n"
	"--listen for ports, --map for files and sockets, --net-ns and --ipc-ns for all ports and System V\n"
	"objects. --env changes the environment where the kernel has put it (what /proc/PID/environ\n"
	"shows): the variable must be there, the new value be no longer. getenv(3) finds it, in C and C++,\n"
	"Lua and Node.js, and so do programs that are started from then on. What was read or copied before\n"
	"stays: Python (os.environ), Perl, Ruby, PHP, Go and bash copy all of their environment at their\n"
	"start, Java at its first look; they do not see the change. A program that calls\n"
	"fsnap_checkpoint() can be told more.\n"
	"\n"
	"--deny and --allow say what a restore may do here, whatever the image says; rules of\n"
	"/etc/fsnap/policy (`deny WHAT` or `allow WHAT`, one a line) come before them, the last that fits\n"
	"decides. `credentials`: users, groups, capabilities that you do not have; `devices`; `network`:\n"
	"sockets other than unix ones; `namespaces`; `unconfined`: processes without a\n"
	"seccomp filter; a path: files at or below it, by name and by where that leads.\n"
	"\n"
	"Much memory (256 MiB and more) is streamed: the tree runs at once, and what it touches comes\n"
	"first. Should the image prove damaged by then, or the process that brings it be killed, the\n"
	"tree is killed and a message says so: here, or in the kernel's log with -d. (Who kills at once\n"
	"that process and the one that watches it leaves zeroes: `pkill fsnap` is no good idea within\n"
	"these seconds.) --memory eager brings all of it before. With --record,\n"
	"what is touched in the first seconds is noted, and comes first the next time.\n"
	"\n"
	"Examples:\n"
	"  fsnap restore                        the newest image runs again, here\n"
	"  fsnap restore filled -d              in the background; prints the PID of its root\n"
	"  fsnap restore filled --clones 9 --listen 6379=700{n} --map /srv/data=/srv/data-{n}\n"
	"                                       nine copies, from 1 on, with ports and files of their own\n"
	"  fsnap restore filled --clones 10 --pid-ns --net-ns\n"
	"                                       each with the numbers and ports it had, in its own world\n"
	"  fsnap restore ./build/warm.fsnap     an image that is not in the store\n"
	"  fsnap restore filled --map /srv/data=/mnt/copy --changed warn\n"
	"                                       its files are a copy somewhere else\n"
	"  fsnap restore filled --fd 1=5 --fd 1240:2=5 5>>new.log\n"
	"                                       its output goes to another file, a child's errors too\n"
	"  fsnap restore filled --external journal=8 8<>/run/pipe\n"
	"                                       what the dump was told leads outside\n"
	"  fsnap restore filled --explain | less\n"
	"                                       what would be done, and in which order\n";

static const char list_help[] =
	"The newest image stands first; it is the one `fsnap restore` takes. Damaged images are\n"
	"listed too, with what is wrong with them.\n"
	"\n"
	"Examples:\n"
	"  fsnap list\n"
	"  fsnap list --json | jq -r '.images[].name'\n"
	"  fsnap list --quiet                   only the names\n";

static const char inspect_help[] =
	"Shows processes, memory, open files and threads, either of an IMAGE (a name or a path;\n"
	"the newest where none is given) or of a running tree (-t). A running tree is stopped for\n"
	"a moment if its threads are to be seen, and left running.\n"
	"\n"
	"Examples:\n"
	"  fsnap inspect filled\n"
	"  fsnap inspect filled --stacks        where every thread stood when it was saved\n"
	"  fsnap inspect -t 1234 --threads      what a running process is doing right now\n"
	"  fsnap inspect filled --json          everything the image says\n";

static const char heat_help[] =
	"Shows, file by file, what the page cache holds for an IMAGE (the newest where none is\n"
	"given) or a running tree (-t), as a strip from the start of the file to its end. A restore\n"
	"fetches these pages first, the hottest before the others.\n"
	"\n"
	"How warm a page is, the kernel knows, and eBPF reads it: as root. Others see what is cached\n"
	"of their own files. With --watch a tree's reads are counted from then on, also of files that\n"
	"it closes again; what was seen goes into the next dump.\n"
	"\n"
	"Examples:\n"
	"  fsnap heat -t 1234                   of a running tree\n"
	"  fsnap heat -t 1234 --watch           count its reads from now on, at little cost\n"
	"  fsnap heat warm --json | jq '.files[] | select(.hot_bytes > 0) | .path'\n";

static const char prefetch_help[] =
	"Brings the file pages that the tree had in use into this machine's page cache, the hottest\n"
	"first, and ends: to be run ahead of a restore, on the machine that will receive the tree.\n"
	"A restore does the same by itself, while the tree already runs. Files that have changed since\n"
	"the dump are left out and named. Without IMAGE: the newest.\n"
	"\n"
	"Examples:\n"
	"  fsnap prefetch warm                  what was used more than once\n"
	"  fsnap prefetch warm --prefetch warm  ... and what was used once, of any file\n"
	"  fsnap prefetch warm --prefetch all   everything that was cached\n"
	"  fsnap prefetch warm --prefetch-rate 50M --map /srv/old=/srv/new\n";

static const char report_help[] =
	"Writes one HTML page that needs nothing but a browser: processes, memory by kind and size,\n"
	"page-cache heat of each file, descriptors and who is connected with whom, the stack of every\n"
	"thread. Without IMAGE: the newest. The page says what the image says: keep it as private.\n"
	"\n"
	"Examples:\n"
	"  fsnap report filled -o report.html\n"
	"  fsnap restore filled -d --json | fsnap report filled --timeline - -o report.html\n"
	"                                       with how long each part of the restore took\n";

static const char run_help[] =
	"Runs COMMAND, from an image if there is one: the first time it is started, and saved as IMAGE when\n"
	"it is ready; from then on it starts from there, in the time that a restore takes. fsnap stands in\n"
	"for it, as `fsnap restore` does. Its standard input waits until it is saved: what it is told there\n"
	"is for this start, and so are its output and errors, wherever they go. Several may run at once: all\n"
	"but one have namespaces of their own then. What is not ready after two minutes\n"
	"(--ready-within) is ended, all of it.\n"
	"\n"
	"The image knows what it was made from. It is made anew, and what has changed is said, if that is\n"
	"not the same: the words of COMMAND, the working directory, what says that it is ready, --with; the\n"
	"program and its libraries, or the script that COMMAND is; files named with --depends (a script\n"
	"that an interpreter is given, settings), by size and time of change; and variables named with\n"
	"--env, which may be given with a value. Other variables are those of the first start. With\n"
	"--changed refuse this is an error, with warn or accept the image is taken even so. What was not\n"
	"made by `fsnap run` is not replaced.\n"
	"\n"
	"Examples:\n"
	"  fsnap run --warm search --ready-port 9200 -- java -jar search.jar\n"
	"  fsnap run --warm fixture --ready-line '^ready$' --with /tmp/data -- ./server /tmp/data\n"
	"  fsnap run --warm api --ready-port 8000 --depends app.py --env DB_URL -- python3 app.py\n"
	"  echo this | fsnap run --warm suite --ready-fd 3 -- sh -c 'prepare; exec 3>&-; exec ./tests'\n";

static const char template_help[] =
	"Holds an image ready in memory, as a process of its own (`fsnap-template`), so that copies are made\n"
	"in about a millisecond: the image is checked once, its memory is copied when a copy writes to it.\n"
	"\n"
	"  start [IMAGE]   begins to hold it, under its name or --name; ends when told to stop\n"
	"  list            what is held in this store, for you\n"
	"  copy NAME       makes a copy, as `fsnap restore --new-pids` does, with streams and working directory of\n"
	"                  this command where the tree's led outside; waits for it, or leaves (-d, --clones)\n"
	"  stop NAME       lets it go (--all: all of them); copies go on\n"
	"\n"
	"A copy is the child of that process; in the foreground signals and its exit status pass through, but\n"
	"it has no terminal to control; where making it fails, the status is 125. What `fsnap restore --help`\n"
	"says of the options holds here, descriptors of --fd and --external are those of this command.\n"
	"\n"
	"If that process was killed, list tells so and removes its name, as stop does; start takes it over.\n"
	"One that is stopped, or does nothing for half a minute, is not waited for (a copy: ten minutes).\n"
	"\n"
	"Examples:\n"
	"  fsnap template start filled\n"
	"  fsnap template copy filled -d --listen 6379=0\n"
	"  fsnap template copy filled --clones 10 --pid-ns --net-ns\n"
	"  fsnap template list --json | jq -r '.templates[].name'\n"
	"  fsnap template stop filled\n";

static const char core_help[] =
	"Writes one process of an image as an ELF core file, which gdb and others open: every thread with\n"
	"its registers, and the memory that is in the image. Programs and libraries are not in it, only\n"
	"where they are. What the program has excluded from core files (MADV_DONTDUMP) is left out.\n"
	"Without IMAGE: the newest; without -o: core.PID here. Nothing is restored for it.\n"
	"\n"
	"Examples:\n"
	"  fsnap core filled -o filled.core     the root of the tree\n"
	"  fsnap core filled --pid 1240         another process of it\n"
	"  gdb -ex 'thread apply all bt' /usr/bin/redis-server filled.core\n";

static const char track_help[] =
	"From now on each `fsnap dump` of the tree stores only the memory that has changed since the one\n"
	"before, and refers to that image for the rest. Such an image is restored, inspected and removed\n"
	"like any other; one that others build on can be removed, too, and its file stays until they are\n"
	"gone. A small process (fsnap-track) keeps track until the root ends or it is told to --stop.\n"
	"There is no --store: tracking itself stores nothing, each dump says where its image goes. Images\n"
	"build on those of their own store, so use the same one; in another the next is whole.\n"
	"What files the tree reads is watched meanwhile, as by `fsnap heat --watch`, so that images know\n"
	"which are hot; not with --heat never, nor where BPF may not be used.\n"
	"\n"
	"Not tracked, but copied each time and then compared: shared memory, private pages of files,\n"
	"processes with rings of io_uring or files open with O_DIRECT. Needs Linux 6.7; no soft-dirty bits.\n"
	"\n"
	"Examples:\n"
	"  fsnap track -t 1234\n"
	"  fsnap dump -t 1234                   all of it\n"
	"  fsnap dump -t 1234                   what has changed since\n"
	"  fsnap compact NAME                   an image that is to stand alone\n"
	"  fsnap track -t 1234 --stop\n";

static const char watch_help[] =
	"Saves the tree over and over, each image building on the one before, so that the state a moment\n"
	"before a crash is always at hand. Of the images NAME-000001, NAME-000002, ... the newest stay.\n"
	"Ends with the tree, or by Ctrl-C; the last images remain. A store in memory suits it best.\n"
	"Where images take so long that the tree would stand still for more than 3 % of the time\n"
	"(--max-share), or longer than from one to the next, there are fewer of them, and in the end it says\n"
	"how many are missing. With --json, one line per image and one at the end.\n"
	"\n"
	"Examples:\n"
	"  fsnap watch -t 1234 --every 10ms --keep 100\n"
	"                                       the last seconds of a server, in steps of 10 ms\n"
	"                                       or as many more as --max-share wants\n"
	"  fsnap watch -t 1234 --every 1m --keep 60 --name hourly\n"
	"  fsnap restore hourly-000042          one of them runs again\n";

static const char compact_help[] =
	"An image that was made under `fsnap track` or `fsnap watch` refers to pages of earlier ones. This\n"
	"copies them into it, so that it can be copied elsewhere as one file. Others that build on it go on\n"
	"doing so, and whoever has it open goes on reading.\n"
	"\n"
	"Examples:\n"
	"  fsnap compact nightly\n";

static const char verify_help[] =
	"Reads the whole image and compares every checksum. Without IMAGE: the newest.\n"
	"Of an encrypted one without its key: whether the file is as it was written.\n"
	"Exit status 6 if it is damaged.\n"
	"\n"
	"Examples:\n"
	"  fsnap verify filled\n"
	"  fsnap verify --all\n";

static const char rm_help[] =
	"The space of a removed image is kept for the next dump, which is much faster in memory\n"
	"that exists already. --trim gives it back to the file system instead.\n"
	"\n"
	"Examples:\n"
	"  fsnap rm filled warm                 remove two images\n"
	"  fsnap rm --all                       remove every image\n"
	"  fsnap rm --trim                      remove none, but give the kept space back\n"
	"  fsnap rm --all --trim                leave nothing behind\n"
	"  fsnap rm moved --decrypt me.secret   one that was dumped with --tcp keep and --encrypt: whose\n"
	"                                       packets are held back for it is known with its key only\n";

static const char keygen_help[] =
	"Makes FILE, which signs and which only you may read, and FILE.pub. Where FILE.pub lies in\n"
	"/etc/fsnap/trusted, or in the directory $FSNAP_TRUSTED, images are opened only if they are\n"
	"signed with FILE, or with another key that is trusted there.\n"
	"\n"
	"With --secret it is a key to encrypt images with, and there is no other half of it: who has FILE\n"
	"reads them, and who has lost it does not.\n"
	"\n"
	"Examples:\n"
	"  fsnap keygen --secret ~/images.key && fsnap dump -t 1234 --encrypt ~/images.key\n"
	"  fsnap keygen ~/fsnap.key\n"
	"  sudo install -D -m 644 ~/fsnap.key.pub /etc/fsnap/trusted/me.pub\n";

static const char sign_help[] =
	"Puts a signature (Ed25519) behind the image in its file, once every checksum of it has been\n"
	"found right. It covers every byte; a changed image must be signed anew. Of an image that builds on\n"
	"others, those are signed, too.\n"
	"\n"
	"Examples:\n"
	"  fsnap sign --key ~/fsnap.key warm\n"
	"  fsnap verify --key ~/fsnap.key.pub warm\n";

static const char doctor_help[] =
	"Tries, as this user, everything that fsnap uses of the kernel: `good`, `partly`, `lacks` (fsnap does\n"
	"without; what that costs, and how to get it, is said) or `fatal`. Nothing is changed by it.\n"
	"Exit status 1 if something is fatal.\n"
	"\n"
	"Examples:\n"
	"  fsnap doctor\n"
	"  sudo fsnap doctor                    what root can do here\n"
	"  fsnap doctor --json | jq -r '.checks[] | select(.state != \"good\") | .name'\n";

static const char help_help[] =
	"Examples:\n"
	"  fsnap help                           the commands\n"
	"  fsnap help dump                      one of them, like `fsnap dump --help`\n"
	"  fsnap help exit                      what exit statuses mean\n"
	"  fsnap help kinds                     which open files are kept, and what is refused\n";

const struct command commands[] = {
	{ "dump", "-t PID", 0, 0, cli_dump, "save a running process tree into an image", dump_help },
	{ "restore", "[IMAGE]", 0, 1, cli_restore, "let an image run again", restore_help },
	{ "list", "", 0, 0, cli_list, "show the images of the store", list_help },
	{ "inspect", "[IMAGE | -t PID]", 0, 1, cli_inspect, "look into an image or a running tree",
	  inspect_help },
	{ "heat", "[IMAGE | -t PID]", 0, 1, cli_heat, "show which of its files' pages are in use", heat_help },
	{ "prefetch", "[IMAGE]", 0, 1, cli_prefetch, "bring an image's hot file pages into the page cache",
	  prefetch_help },
	{ "report", "[IMAGE]", 0, 1, cli_report, "write a page about an image", report_help },
	{ "run", "-- COMMAND...", 1, -1, cli_run, "start a command from an image, or make that", run_help },
	{ "template", "start [IMAGE] | list | copy NAME | stop NAME", 1, 2, cli_template,
	  "hold an image ready, make copies of it", template_help },
	{ "core", "[IMAGE]", 0, 1, cli_core, "write a process as a core file, for gdb", core_help },
	{ "track", "-t PID", 0, 0, cli_track, "from now on, dumps store only what changed", track_help },
	{ "watch", "-t PID", 0, 0, cli_watch, "save a tree over and over, keep the last images", watch_help },
	{ "compact", "IMAGE", 1, 1, cli_compact, "make an image stand alone", compact_help },
	{ "verify", "[IMAGE]", 0, 1, cli_verify, "check that an image is undamaged", verify_help },
	{ "keygen", "FILE", 1, 1, cli_keygen, "make a key to sign images with, or to encrypt them", keygen_help },
	{ "sign", "IMAGE...", 1, -1, cli_sign, "sign images", sign_help },
	{ "rm", "NAME...", 0, -1, cli_rm, "remove images, give back space", rm_help },
	{ "doctor", "", 0, 0, cli_doctor, "say what works on this machine, for this user", doctor_help },
	{ "help", "[COMMAND]", 0, 1, cli_help, "explain a command", help_help },
	{ 0 },
};
