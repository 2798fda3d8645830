// Counts (lib/counting.py): a pool of threads serves; others make garbage, old and young, for the
// collector's threads, and check what they keep.
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Executors;

public class Counting {
	static final Map<String, Integer> last = new HashMap<>();
	static int total;
	static volatile String broken;

	static class Node {
		final long n;
		final String text;
		final Node left, right;

		Node(long n, int depth) {
			this.n = n;
			text = "x" + n;
			left = depth > 1 ? new Node(2 * n, depth - 1) : null;
			right = depth > 1 ? new Node(2 * n + 1, depth - 1) : null;
		}

		boolean good(long expected) {
			return n == expected && text.equals("x" + expected) && (left == null || left.good(2 * n)) &&
				(right == null || right.good(2 * n + 1));
		}
	}

	static void garden() {
		try {
			for (Node old = new Node(1, 14);; old = new Node(1, 14)) {
				for (int i = 0; i < 20; i++) {
					if (!new Node(1, 10).good(1))
						broken = "young memory is broken";
					Thread.sleep(2);
				}
				if (!old.good(1))
					broken = "old memory is broken";
			}
		} catch (Throwable e) {
			broken = e.toString();
		}
	}

	static synchronized String count(String client, int n) {
		int before = last.getOrDefault(client, 0);
		if (n != 0) {
			last.put(client, n);
			total++;
			if (n != before + 1)
				return client + " had " + before + ", not " + (n - 1);
		}
		return broken != null ? broken : client + " " + n + " " + total;
	}

	public static void main(String[] words) throws Exception {
		for (int i = 0; i < 3; i++)
			new Thread(Counting::garden).start();
		HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1",
			Integer.parseInt(words[0])), 0);
		server.createContext("/add", exchange -> {
			String[] asked = exchange.getRequestURI().getQuery().split("[=&]");
			byte[] answer = count(asked[1], Integer.parseInt(asked[3])).getBytes();
			exchange.sendResponseHeaders(200, answer.length);
			exchange.getResponseBody().write(answer);
			exchange.close();
		});
		server.setExecutor(Executors.newFixedThreadPool(4));
		server.start();
	}
}
