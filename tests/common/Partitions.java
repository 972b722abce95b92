// The partition of each key as Kafka's own Java producer chooses it:
//   java -cp 'LIBS/*' Partitions.java COUNT... < KEYS
// A key a line, in hexadecimal; a line of partitions, one for each COUNT of partitions.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HexFormat;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

public class Partitions {
    public static void main(String[] counts) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "US-ASCII"));
        StringBuilder out = new StringBuilder();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            byte[] key = HexFormat.of().parseHex(line);
            for (String count : counts)
                out.append(BuiltInPartitioner.partitionForKey(key, Integer.parseInt(count))).append(' ');
            out.append('\n');
        }
        System.out.print(out);
    }
}
