import java.util.Arrays;
import java.util.concurrent.TimeUnit;

import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryNTimes;

/** A process that locks with Curator: `Peer HOSTS PATH ENTRIES COMMAND...`. It runs the command inside. */
class Peer {
    static final long PATIENCE = 60;

    public static void main(String[] words) throws Exception {
        var command = Arrays.copyOfRange(words, 3, words.length);
        try (var client = CuratorFrameworkFactory.newClient(words[0], new RetryNTimes(10, 100))) {
            client.start();
            var mutex = new InterProcessMutex(client, words[1]);
            for (int n = Integer.parseInt(words[2]); n > 0; n--) {
                enter(mutex, command);
            }
        }
    }

    static void enter(InterProcessMutex mutex, String[] command) throws Exception {
        if (!mutex.acquire(PATIENCE, TimeUnit.SECONDS)) {
            throw new IllegalStateException("the lock wasn't acquired in time");
        }
        try {
            int status = new ProcessBuilder(command).inheritIO().start().waitFor();
            if (status != 0) {
                throw new IllegalStateException("the command ended with " + status);
            }
        } finally {
            mutex.release();
        }
    }
}
