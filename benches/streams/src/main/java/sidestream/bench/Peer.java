package sidestream.bench;

import java.time.Duration;
import java.time.Instant;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Two of the benchmark's topologies on Kafka Streams: {@code Peer keyed|tumbling BROKERS INPUT OUTPUT APPLICATION
 * STATE_DIR}. Prints how many records it has processed, until it is killed.
 */
public final class Peer {
    private static final Duration WINDOW = Duration.ofSeconds(10);
    private static final Duration RETENTION = Duration.ofMinutes(1);
    private static final long PROGRESS_INTERVAL_MS = 20;

    private Peer() {}

    public static void main(String[] arguments) throws InterruptedException {
        String program = arguments[0];
        String input = arguments[2];
        String output = arguments[3];
        Topology topology =
                switch (program) {
                    case "keyed" -> keyed(input, output);
                    case "tumbling" -> tumbling(input, output);
                    default -> throw new IllegalArgumentException(program);
                };
        KafkaStreams streams = new KafkaStreams(topology, properties(arguments[1], arguments[4], arguments[5]));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        report(streams);
    }

    private static Topology keyed(String input, String output) {
        StreamsBuilder builder = new StreamsBuilder();
        transactions(builder, input)
                .aggregate(
                        () -> Aggregate.EMPTY,
                        (account, transaction, aggregate) -> aggregate.with(transaction.amount),
                        Materialized.<String, Aggregate, KeyValueStore<Bytes, byte[]>>as("totals")
                                .withKeySerde(Serdes.String())
                                .withValueSerde(Aggregate.SERDE))
                .toStream()
                .mapValues((account, a) -> new Json.Totals(account, a.count(), a.sum(), a.maximum()))
                .to(output, Produced.with(Serdes.String(), Json.serde(Json.Totals.class)));
        return builder.build();
    }

    private static Topology tumbling(String input, String output) {
        StreamsBuilder builder = new StreamsBuilder();
        transactions(builder, input)
                .windowedBy(TimeWindows.ofSizeWithNoGrace(WINDOW))
                .count(Materialized.<String, Long, WindowStore<Bytes, byte[]>>as("counts")
                        .withKeySerde(Serdes.String())
                        .withValueSerde(Serdes.Long())
                        .withRetention(RETENTION))
                .toStream()
                .map((window, count) -> {
                    String account = window.key();
                    String start = Instant.ofEpochMilli(window.window().start()).toString();
                    String end = Instant.ofEpochMilli(window.window().end()).toString();
                    return KeyValue.pair(
                            new Json.WindowKey(account, start), new Json.WindowRow(account, start, end, count));
                })
                .to(output, Produced.with(Json.serde(Json.WindowKey.class), Json.serde(Json.WindowRow.class)));
        return builder.build();
    }

    private static KGroupedStream<String, Json.Transaction> transactions(StreamsBuilder builder, String input) {
        Consumed<String, Json.Transaction> consumed = Consumed.with(Serdes.String(), Json.serde(Json.Transaction.class))
                .withTimestampExtractor((record, partitionTime) -> ((Json.Transaction) record.value()).at);
        return builder.stream(input, consumed).groupByKey();
    }

    private static Properties properties(String brokers, String application, String stateDirectory) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, stateDirectory);
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        // As one worker.
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        // All keys fit.
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        // As librdkafka's default.
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.CHECK_CRCS_CONFIG), false);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 128L << 20);
        return properties;
    }

    /** From the thread's own counter, which Kafka Streams keeps anyway. */
    private static void report(KafkaStreams streams) throws InterruptedException {
        Metric processed = null;
        while (true) {
            if (processed == null) {
                processed = streams.metrics().values().stream()
                        .filter(metric -> metric.metricName().group().equals("stream-thread-metrics")
                                && metric.metricName().name().equals("process-total"))
                        .findFirst()
                        .orElse(null);
            } else {
                System.out.println(((Number) processed.metricValue()).longValue());
            }
            Thread.sleep(PROGRESS_INTERVAL_MS);
        }
    }
}
