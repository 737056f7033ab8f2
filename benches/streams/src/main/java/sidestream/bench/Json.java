package sidestream.bench;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.module.blackbird.BlackbirdModule;
import java.io.IOException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** What is read and written as JSON. A reader and a writer per type, made once. */
final class Json {
    private static final ObjectMapper MAPPER = JsonMapper.builder().addModule(new BlackbirdModule()).build();

    private Json() {}

    /** The two fields that the topologies need; the others are skipped. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    static final class Transaction {
        public double amount;
        public long at;
    }

    /** A row of the keyed output. */
    record Totals(String account, long n, double total, double largest) {}

    /** The key and the row of the windowed output, times in RFC 3339. */
    record WindowKey(String account, String window_start) {}

    record WindowRow(String account, String window_start, String window_end, long n) {}

    static <T> Serde<T> serde(Class<T> type) {
        ObjectReader reader = MAPPER.readerFor(type);
        ObjectWriter writer = MAPPER.writerFor(type);
        return Serdes.serdeFrom(
                (topic, value) -> {
                    try {
                        return value == null ? null : writer.writeValueAsBytes(value);
                    } catch (IOException e) {
                        throw new SerializationException(e);
                    }
                },
                (topic, bytes) -> {
                    try {
                        return bytes == null ? null : reader.readValue(bytes);
                    } catch (IOException e) {
                        throw new SerializationException(e);
                    }
                });
    }
}
