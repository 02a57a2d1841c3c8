/*
 * Unit tests: test GOLDEN_FOLDER README. Every buffer is on the heap with its exact size, so that the address sanitiser
 * sees each byte read or written outside.
 */
#include "test_bytes.h"
#include "tidegate.h"

static const char PROMPTS[] = "tg/v1/mill/gw-3/prompt/press-7";
static const char ANSWERS[] = "tg/v1/mill/gw-3/answer/press-7";
static const char QUESTION[] = "Is the press too hot?";

static void packets_are_those_of_the_readme(const char *readme)
{
    static const char JSON[] = "{\"id\":\"b3f1-7\",\"input\":\"Is the press too hot?\",\"deadline_ms\":30000}";
    struct tg_connect connect = {"press-7", NULL, NULL, NULL, NULL, 60, false};
    struct tg_publish publish = {PROMPTS, (const uint8_t *)JSON, sizeof JSON - 1, 2, false};
    struct tg_prompt prompt = {"b3f1-7", NULL, QUESTION, 0, 0, 30000, false, false};
    uint8_t out[256], payload[128];
    CHECK(same(out, tg_connect(out, sizeof out, &connect), hex_block(readme, "connect")));
    CHECK(same(out, tg_subscribe(out, sizeof out, 1, ANSWERS), hex_block(readme, "subscribe")));
    CHECK(same(out, tg_publish(out, sizeof out, &publish), hex_block(readme, "publish-json")));
    publish.payload = payload;
    publish.payload_len = tg_prompt(payload, sizeof payload, &prompt);
    publish.packet_id = 3;
    CHECK(same(out, tg_publish(out, sizeof out, &publish), hex_block(readme, "publish-cbor")));
    CHECK(same(out, tg_puback(out, sizeof out, 9), hex_block(readme, "puback")));
    CHECK(tg_pingreq(out, 2) == 2 && out[0] == 0xc0 && out[1] == 0);
    CHECK(tg_disconnect(out, 2) == 2 && out[0] == 0xe0 && out[1] == 0);
}

static void credentials_and_flags_stand_where_mqtt_wants_them(void)
{
    struct tg_connect connect = {"a", "u", "p", NULL, NULL, 0, true};
    struct tg_publish publish = {"t", (const uint8_t *)"x", 1, 0x0102, true};
    uint8_t out[64];
    CHECK(same(out, tg_connect(out, sizeof out, &connect),
               copy("\x10\x13\0\4MQTT\4\xc2\0\0\0\1" "a\0\1u\0\1p", 21)));
    connect.user = NULL;
    CHECK(same(out, tg_connect(out, sizeof out, &connect), copy("\x10\x0d\0\4MQTT\4\2\0\0\0\1" "a", 15)));
    CHECK(same(out, tg_publish(out, sizeof out, &publish), copy("\x3a\6\0\1t\1\2x", 8)));
    connect.user = "u";
    connect.will_topic = "w";
    connect.will_text = "!";
    CHECK(same(out, tg_connect(out, sizeof out, &connect),
               copy("\x10\x19\0\4MQTT\4\xce\0\0\0\1" "a\0\1w\0\1!\0\1u\0\1p", 27)));
}

static void a_buffer_that_is_too_small_is_never_overrun(void)
{
    struct tg_connect connect = {"press-7", "user", "password", "will/topic", "lost", 60, false};
    struct tg_prompt prompt = {"b3f1-7", "action", QUESTION, 64, 1024, 70000, true, true};
    struct tg_publish publish = {PROMPTS, (const uint8_t *)QUESTION, sizeof QUESTION - 1, 2, false};
    size_t cap, whole[5], got[5];
    uint8_t big[256];
    unsigned i;
    for (cap = sizeof big; cap <= sizeof big; cap--) {
        struct bytes small = copy(big, cap);
        got[0] = tg_connect(small.at, cap, &connect);
        got[1] = tg_prompt(small.at, cap, &prompt);
        got[2] = tg_publish(small.at, cap, &publish);
        got[3] = tg_subscribe(small.at, cap, 1, ANSWERS);
        got[4] = tg_puback(small.at, cap, 1);
        for (i = 0; i < 5; i++) {
            whole[i] = cap == sizeof big ? got[i] : whole[i];
            CHECK(got[i] == (cap >= whole[i] ? whole[i] : 0));
        }
        free(small.at);
    }
}

static void prompts_are_those_of_the_gateways_golden_payloads(const char *golden)
{
    struct tg_prompt least = {NULL, NULL, "turn off the lights in the packing hall", 0, 0, 0, false, false};
    struct tg_prompt full = {"b3f1-7", "action", least.input, 64, 1024, 30000, true, true};
    uint8_t out[256];
    CHECK(same(out, tg_prompt(out, sizeof out, &least), read_file(golden, "prompt-min.cbor")));
    CHECK(same(out, tg_prompt(out, sizeof out, &full), read_file(golden, "prompt-device.cbor")));
}

static void an_answer_has_its_fields(const char *golden)
{
    struct bytes b = read_file(golden, "answer-text.cbor");
    struct tg_value v, inner;
    CHECK(tg_find(b.at, b.len, "kind", &v) == TG_OK && tg_is(&v, "answer"));
    CHECK(tg_find(b.at, b.len, "id", &v) == TG_OK && tg_is(&v, "b3f1-7"));
    CHECK(tg_find(b.at, b.len, "text", &v) == TG_OK && tg_is(&v, "The lights in the packing hall are off."));
    CHECK(tg_find(b.at, b.len, "confidence", &v) == TG_OK && v.kind == TG_FLOAT && v.fraction > 0.9126
          && v.fraction < 0.9128);
    CHECK(tg_find(b.at, b.len, "provisional", &v) == TG_OK && v.kind == TG_BOOL && v.number == 0);
    CHECK(tg_find(b.at, b.len, "timing", &v) == TG_OK && v.kind == TG_MAP
          && tg_find(v.raw, v.raw_len, "total_ms", &inner) == TG_OK && inner.number == 304);
    CHECK(tg_find(b.at, b.len, "total_ms", &v) == TG_NOT_FOUND);
    CHECK(tg_find(b.at, b.len, "tex", &v) == TG_NOT_FOUND);
    free(b.at);
    b = read_file(golden, "answer-json.cbor");
    CHECK(tg_find(b.at, b.len, "json", &v) == TG_OK && tg_find(v.raw, v.raw_len, "room", &inner) == TG_OK
          && tg_is(&inner, "packing hall"));
    CHECK(tg_find(b.at, b.len, "confidence", &v) == TG_OK && v.fraction > 0.49 && v.fraction < 0.51);
    free(b.at);
    b = read_file(golden, "error.cbor");
    CHECK(tg_find(b.at, b.len, "code", &v) == TG_OK && tg_is(&v, "busy"));
    CHECK(tg_find(b.at, b.len, "retry_after_ms", &v) == TG_OK && v.kind == TG_UINT && v.number == 5000);
    free(b.at);
}

/* One value in a map {"a": value}. The value's texts do not outlive the call. */
static enum tg_status one(const char *value, size_t len, struct tg_value *v)
{
    uint8_t map[128] = {0xa1, 0x61, 'a'};
    struct bytes b;
    enum tg_status status;
    memcpy(map + 3, value, len);
    b = copy(map, len + 3);
    status = tg_find(b.at, b.len, "a", v);
    free(b.at);
    return status;
}

static void numbers_are_read_in_every_form(void)
{
    struct tg_value v;
    CHECK(one("\x17", 1, &v) == TG_OK && v.number == 23);
    CHECK(one("\x18\xff", 2, &v) == TG_OK && v.number == 255);
    CHECK(one("\x1b\xff\xff\xff\xff\xff\xff\xff\xff", 9, &v) == TG_OK && v.number == UINT64_MAX);
    CHECK(one("\x38\x63", 2, &v) == TG_OK && v.kind == TG_NEGATIVE && v.number == 99 && v.fraction == -100.0);
    CHECK(one("\xf9\x3c\x00", 3, &v) == TG_OK && v.kind == TG_FLOAT && v.fraction == 1.0);
    CHECK(one("\xf9\x38\x00", 3, &v) == TG_OK && v.fraction == 0.5);
    CHECK(one("\xf9\xc4\x00", 3, &v) == TG_OK && v.fraction == -4.0);
    CHECK(one("\xf9\x7b\xff", 3, &v) == TG_OK && v.fraction == 65504.0);
    CHECK(one("\xf9\x00\x01", 3, &v) == TG_OK && v.fraction > 5.96e-8 && v.fraction < 5.97e-8);
    CHECK(one("\xf9\x7e\x00", 3, &v) == TG_OK && v.fraction != v.fraction);
    CHECK(one("\xf9\xfc\x00", 3, &v) == TG_OK && v.fraction < -1e300);
    CHECK(one("\xfa\x47\xc3\x50\x00", 5, &v) == TG_OK && v.fraction == 100000.0);
    CHECK(one("\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a", 9, &v) == TG_OK && v.fraction == 1.1);
    CHECK(one("\xc1\x18\x2a", 3, &v) == TG_OK && v.kind == TG_UINT && v.number == 42);
    CHECK(one("\xf4", 1, &v) == TG_OK && v.kind == TG_BOOL && v.number == 0);
    CHECK(one("\xf5", 1, &v) == TG_OK && v.kind == TG_BOOL && v.number == 1);
    CHECK(one("\xf6", 1, &v) == TG_OK && v.kind == TG_NULL);
    CHECK(one("\x9f\x01\x82\x02\x03\xff", 6, &v) == TG_OK && v.kind == TG_ARRAY && v.raw_len == 6);
}

static void broken_values_are_refused(void)
{
    char deep[64];
    struct tg_value v;
    CHECK(one("", 0, &v) == TG_BAD);
    CHECK(one("\x18", 1, &v) == TG_BAD);
    CHECK(one("\x1c", 1, &v) == TG_BAD);
    CHECK(one("\x62" "a", 2, &v) == TG_BAD);
    CHECK(one("\x7b\xff\xff\xff\xff\xff\xff\xff\xff", 9, &v) == TG_BAD);
    CHECK(one("\x9b\xff\xff\xff\xff\xff\xff\xff\xff", 9, &v) == TG_BAD);
    CHECK(one("\xbb\x80\x00\x00\x00\x00\x00\x00\x00", 9, &v) == TG_BAD);
    CHECK(one("\xff", 1, &v) == TG_BAD);
    CHECK(one("\x7f\x61" "a\xff", 4, &v) == TG_OK && v.kind == TG_TEXT && v.text == NULL && v.raw_len == 4);
    CHECK(one("\x81\xff", 2, &v) == TG_BAD);
    memset(deep, 0x81, sizeof deep);
    deep[sizeof deep - 1] = 0;
    CHECK(one(deep, sizeof deep, &v) == TG_BAD);
    CHECK(one(deep + sizeof deep - TG_DEPTH_MAX, TG_DEPTH_MAX, &v) == TG_OK);
    CHECK(tg_find(NULL, 0, "a", &v) == TG_BAD);
    CHECK(tg_find((const uint8_t *)"\x81\x01", 2, "a", &v) == TG_BAD);
    CHECK(tg_find((const uint8_t *)"\xa0", 1, "a", &v) == TG_NOT_FOUND);
    CHECK(tg_find((const uint8_t *)"\xbf\xff", 2, "a", &v) == TG_NOT_FOUND);
    CHECK(tg_find((const uint8_t *)"\xbf", 1, "a", &v) == TG_BAD);
}

static uint32_t dice(void)
{
    static uint32_t x = 20261121;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return x;
}

static const char *const FRAMES[] = {"accepted.cbor", "token.cbor", "answer-text.cbor", "answer-json.cbor",
                                     "answer-provisional.cbor", "error.cbor", "prompt-full.cbor"};
#define FRAME_COUNT (sizeof FRAMES / sizeof FRAMES[0])

static void cut_and_damaged_frames_are_never_read_beyond(const char *golden)
{
    struct tg_value v;
    size_t i, len;
    unsigned round;
    for (i = 0; i < FRAME_COUNT; i++) {
        struct bytes whole = read_file(golden, FRAMES[i]);
        for (len = 0; len < whole.len; len++) {
            struct bytes cut = copy(whole.at, len);
            CHECK(tg_find(cut.at, cut.len, "no such key", &v) == TG_BAD);
            free(cut.at);
        }
        CHECK(tg_find(whole.at, whole.len, "no such key", &v) == TG_NOT_FOUND);
        for (round = 0; round < 20000; round++) {
            struct bytes bad = copy(whole.at, 1 + dice() % whole.len);
            bad.at[dice() % bad.len] = (uint8_t)dice();
            bad.at[dice() % bad.len] ^= (uint8_t)(1u << dice() % 8);
            CHECK(tg_find(bad.at, bad.len, "timing", &v) != TG_OK || (v.raw >= bad.at && v.raw_len <= bad.len));
            free(bad.at);
        }
        free(whole.at);
    }
}

/* Packets as a gateway sends them, one after the other. */
static struct bytes stream(const char *golden)
{
    uint8_t all[2048] = {0x20, 2, 0, 0, 0x90, 3, 0, 1, 1, 0xd0, 0};
    size_t len = 11, i;
    for (i = 0; i < FRAME_COUNT; i++) {
        struct bytes frame = read_file(golden, FRAMES[i]);
        struct tg_publish p = {ANSWERS, frame.at, frame.len, (uint16_t)(10 + i), i % 2 == 1};
        len += tg_publish(all + len, sizeof all - len, &p);
        free(frame.at);
    }
    len += tg_puback(all + len, sizeof all - len, 77);
    return copy(all, len);
}

/* Feeds a stream in pieces of random size; checks each packet; returns how many came whole. */
static unsigned feed(struct bytes bytes, size_t cap, const char *golden)
{
    struct bytes buf = copy(bytes.at, cap < bytes.len ? cap : bytes.len);
    struct tg_reader reader;
    struct tg_packet p;
    size_t sent = 0, space, piece;
    unsigned seen = 0, whole = 0;
    enum tg_status status;
    tg_reader_init(&reader, buf.at, buf.len);
    while (sent < bytes.len) {
        uint8_t *at = tg_reader_space(&reader, &space);
        piece = 1 + dice() % 60;
        piece = piece < space ? piece : space;
        piece = piece < bytes.len - sent ? piece : bytes.len - sent;
        CHECK(piece > 0);
        memcpy(at, bytes.at + sent, piece);
        tg_reader_received(&reader, piece);
        sent += piece;
        while ((status = tg_reader_next(&reader, &p)) == TG_OK || status == TG_TOO_LARGE) {
            if (p.type == TG_PUBLISH) {
                struct bytes frame = read_file(golden, FRAMES[p.packet_id - 10]);
                CHECK(p.qos == 1 && p.again == (p.packet_id % 2 == 1) && p.payload_len == frame.len);
                CHECK(p.topic_len == sizeof ANSWERS - 1 && memcmp(p.topic, ANSWERS, p.topic_len) == 0);
                CHECK(status == TG_TOO_LARGE ? p.payload == NULL : memcmp(p.payload, frame.at, frame.len) == 0);
                free(frame.at);
            }
            CHECK(p.type != TG_CONNACK || (seen == 0 && p.code == 0));
            CHECK(p.type != TG_SUBACK || (seen == 1 && p.code == 1 && p.packet_id == 1));
            CHECK(p.type != TG_PUBACK || p.packet_id == 77);
            seen++;
            whole += status == TG_OK ? 1 : 0;
        }
        CHECK(status == TG_MORE);
    }
    CHECK(seen == 4 + FRAME_COUNT);
    free(buf.at);
    return whole;
}

static void packets_come_together_from_any_pieces(const char *golden)
{
    struct bytes bytes = stream(golden);
    unsigned round;
    for (round = 0; round < 500; round++) {
        CHECK(feed(bytes, bytes.len, golden) == 4 + FRAME_COUNT);
        CHECK(feed(bytes, 320, golden) == 4 + FRAME_COUNT);
        /* Two of the seven publishes fit 100 bytes; the others are announced, dropped, and what follows is whole. */
        CHECK(feed(bytes, 100, golden) == 4 + 2);
    }
    free(bytes.at);
}

static enum tg_status first(const char *bytes, size_t len)
{
    struct bytes b = copy(bytes, len);
    struct tg_reader reader;
    struct tg_packet p;
    enum tg_status status;
    tg_reader_init(&reader, b.at, b.len);
    tg_reader_received(&reader, len);
    status = tg_reader_next(&reader, &p);
    free(b.at);
    return status;
}

static void packets_that_break_the_protocol_are_refused(void)
{
    unsigned round, i;
    CHECK(first("\x30\xff\xff\xff\xff\x01", 6) == TG_BAD);
    CHECK(first("\x20\x03\x00\x00\x00", 5) == TG_BAD);
    CHECK(first("\x36\x05\x00\x01t\x00\x01", 7) == TG_BAD);
    CHECK(first("\x32\x04\x00\x09tt", 6) == TG_BAD);
    CHECK(first("\x32\x03\x00\x01t", 5) == TG_BAD);
    CHECK(first("\x30\x01\x00", 3) == TG_BAD);
    CHECK(first("\x10\x00", 2) == TG_BAD);
    CHECK(first("\x30\x03\x00\x01t", 5) == TG_OK);
    CHECK(first("\x90\x64\x00\x00\x00", 5) == TG_BAD);
    for (round = 0; round < 200000; round++) {
        char noise[24];
        for (i = 0; i < sizeof noise; i++) {
            noise[i] = (char)dice();
        }
        noise[0] = (char)(round % 2 == 0 ? 0x32 : noise[0]);
        noise[1] = (char)(round % 3 == 0 ? dice() % 32 : (unsigned char)noise[1]);
        CHECK(first(noise, 1 + dice() % sizeof noise) <= TG_BAD);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "test GOLDEN_FOLDER README\n");
        return 64;
    }
    packets_are_those_of_the_readme(argv[2]);
    credentials_and_flags_stand_where_mqtt_wants_them();
    a_buffer_that_is_too_small_is_never_overrun();
    prompts_are_those_of_the_gateways_golden_payloads(argv[1]);
    an_answer_has_its_fields(argv[1]);
    numbers_are_read_in_every_form();
    broken_values_are_refused();
    cut_and_damaged_frames_are_never_read_beyond(argv[1]);
    packets_come_together_from_any_pieces(argv[1]);
    packets_that_break_the_protocol_are_refused();
    printf("%u checks, %u failed\n", checks, failures);
    return failures > 0 ? 1 : 0;
}
