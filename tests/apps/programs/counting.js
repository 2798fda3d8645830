// Counts (lib/counting.py): workers of a cluster serve, the first process counts, and hands them the
// connections in turn; each worker has a thread that makes garbage and checks what it keeps.
const cluster = require('cluster'), http = require('http'), { Worker } = require('worker_threads');
const port = Number(process.argv[2]);

const keeper = `
const { parentPort } = require('worker_threads');
let kept = new Map(), n = 0;
setInterval(() => {
	for (let i = 0; i < 500; i++, n++)
		kept.set(n % 5000, { n, text: 'x' + n, list: [n, n + 1] });
	for (const [key, value] of kept)
		if (value.n % 5000 != key || value.text != 'x' + value.n || value.list[1] != value.n + 1)
			parentPort.postMessage('broken at ' + key);
}, 5);`;

if (cluster.isPrimary) {
	const last = new Map();
	let total = 0;
	for (let i = 0; i < 2; i++)
		cluster.fork().on('message', function ({ id, client, n }) {
			let wrong;
			if (n) {
				if (n != (last.get(client) || 0) + 1)
					wrong = `${client} had ${last.get(client)}, not ${n - 1}`;
				last.set(client, n);
				total++;
			}
			this.send({ id, answer: wrong || `${client} ${n} ${total}` });
		});
	process.on('SIGTERM', () => process.exit(7));
} else {
	const waiting = new Map();
	let id = 0, broken;
	new Worker(keeper, { eval: true }).on('message', what => broken = what);
	process.on('message', ({ id, answer }) => {
		waiting.get(id).end(broken || answer);
		waiting.delete(id);
	});
	http.createServer((request, response) => {
		const asked = new URL(request.url, 'http://localhost').searchParams;
		waiting.set(++id, response);
		process.send({ id, client: asked.get('client'), n: Number(asked.get('n')) });
	}).listen(port, '127.0.0.1');
	process.on('disconnect', () => process.exit(0));
}
