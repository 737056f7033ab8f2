package sidestream.bench;

import java.nio.ByteBuffer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** Count, sum and maximum of one account. In the store and the changelog it takes 24 bytes. */
record Aggregate(long count, double sum, double maximum) {
    static final Aggregate EMPTY = new Aggregate(0, 0.0, Double.NEGATIVE_INFINITY);
    static final Serde<Aggregate> SERDE = Serdes.serdeFrom(
            (topic, aggregate) -> aggregate == null ? null : aggregate.toBytes(),
            (topic, bytes) -> bytes == null ? null : fromBytes(bytes));

    Aggregate with(double amount) {
        return new Aggregate(count + 1, sum + amount, Math.max(maximum, amount));
    }

    private byte[] toBytes() {
        return ByteBuffer.allocate(24).putLong(count).putDouble(sum).putDouble(maximum).array();
    }

    private static Aggregate fromBytes(byte[] bytes) {
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        return new Aggregate(buffer.getLong(), buffer.getDouble(), buffer.getDouble());
    }
}
