/*
 * The golden payloads of schemas/, every one of them: test_golden GOLDEN_FOLDER. CBOR is read and written again byte for
 * byte; JSON becomes CBOR and JSON again byte for byte; where a payload stands there in both, one becomes the other; what a
 * device writes is written as it is there. A file of the index that nothing here knows is a failure.
 */
#include "test_bytes.h"

#include "ask.h"
#include "json.h"

#define OUT_BYTES 4096

static void write_again(struct tg_writer *w, const struct tg_value *v);

/* The same items with the same kind of length. */
static void write_items(struct tg_writer *w, const struct tg_value *v)
{
    struct tg_items items;
    struct tg_value item;
    enum tg_status status = tg_open(v->raw, v->raw_len, &items);
    bool closed = items.left == TG_INDEFINITE;
    CHECK(status == TG_OK);
    if (closed) {
        tg_put_open(w, v->kind);
    } else {
        tg_put_head(w, v->kind == TG_MAP ? 5 : 4, v->kind == TG_MAP ? items.left / 2 : items.left);
    }
    while ((status = tg_item(&items, &item)) == TG_OK) {
        write_again(w, &item);
    }
    CHECK(status == TG_NOT_FOUND);
    if (closed) {
        tg_put_close(w);
    }
}

static void write_again(struct tg_writer *w, const struct tg_value *v)
{
    switch (v->kind) {
    case TG_UINT:
        tg_put_head(w, 0, v->number);
        break;
    case TG_NEGATIVE:
        tg_put_head(w, 1, v->number);
        break;
    case TG_BYTES:
        tg_put_head(w, 2, v->text_len);
        tg_put_raw(w, v->text, v->text_len);
        break;
    case TG_BOOL:
        tg_put_bool(w, v->number != 0);
        break;
    case TG_NULL:
        tg_put_null(w);
        break;
    case TG_FLOAT:
        tg_put_float(w, v->fraction);
        break;
    default:
        if (v->kind == TG_TEXT && v->text != NULL) {
            tg_put_text(w, v->text, v->text_len);
        } else {
            write_items(w, v);
        }
        break;
    }
}

/* What stands in a buffer of the exact size. */
static struct tg_value only(const struct bytes *b)
{
    struct tg_items one = {b->at, b->at + b->len, 1, false};
    struct tg_value v;
    CHECK(tg_item(&one, &v) == TG_OK && v.raw_len == b->len);
    return v;
}

static bool there(const char *folder, const char *name)
{
    char path[1024];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "rb");
    if (f != NULL) {
        fclose(f);
    }
    return f != NULL;
}

static void cbor_is_read_and_written(struct bytes whole, struct bytes json)
{
    uint8_t out[OUT_BYTES];
    struct tg_value v = only(&whole);
    struct tg_writer w = tg_writer(out, sizeof out);
    size_t len;
    write_again(&w, &v);
    CHECK(same(out, tg_written(&w), copy(whole.at, whole.len)));
    for (len = 0; len < whole.len; len++) {
        struct bytes cut = copy(whole.at, len);
        CHECK(!tg_whole(cut.at, cut.len));
        CHECK(tg_cbor_to_json((char *)out, sizeof out, cut.at, cut.len) == 0);
        free(cut.at);
    }
    len = tg_cbor_to_json((char *)out, sizeof out, whole.at, whole.len);
    CHECK(len > 0);
    if (json.len > 0) {
        CHECK(same(out, len, copy(json.at, json.len)));
        CHECK(tg_cbor_to_json((char *)out, json.len - 1, whole.at, whole.len) == 0);
    }
    free(whole.at);
    free(json.at);
}

static void json_is_read_and_written(struct bytes whole)
{
    uint8_t cbor[OUT_BYTES];
    char out[OUT_BYTES];
    size_t cut, len = tg_json_to_cbor(cbor, sizeof cbor, (const char *)whole.at, whole.len);
    CHECK(len > 0 && tg_whole(cbor, len));
    CHECK(same((uint8_t *)out, tg_cbor_to_json(out, sizeof out, cbor, len), copy(whole.at, whole.len)));
    for (cut = 0; cut < whole.len; cut++) {
        struct bytes part = copy(whole.at, cut);
        CHECK(tg_json_to_cbor(cbor, sizeof cbor, (const char *)part.at, part.len) == 0);
        free(part.at);
    }
    for (cut = 0; cut < len; cut++) {
        CHECK(tg_json_to_cbor(cbor, cut, (const char *)whole.at, whole.len) == 0);
    }
    free(whole.at);
}

/* ---- bare text: what an ask sends, and what it takes a line for ---- */

struct heard {
    enum tg_said what;
    const uint8_t *expected;
    size_t len;
    bool same;
};

static void hear(void *with, enum tg_said what, const uint8_t *frame, size_t len)
{
    struct heard *heard = with;
    heard->what = what;
    heard->same = len == heard->len && memcmp(frame, heard->expected, len) == 0;
}

static void receive(struct tg_ask *ask, const uint8_t *bytes, size_t len)
{
    size_t space;
    uint8_t *at = tg_ask_space(ask, &space);
    CHECK(len <= space);
    memcpy(at, bytes, len);
    tg_ask_received(ask, len, 1);
    tg_ask_out(ask, &space);
}

/* A bare ask with this text that has sent its prompt; the packet is left in `out`. */
static void ask_bare(struct tg_ask *ask, const char *text, struct heard *heard, const struct tg_buffers *buffers)
{
    static const uint8_t CONNACK[] = {0x20, 2, 0, 0}, SUBACK[] = {0x90, 3, 0, 1, 1};
    struct tg_settings set = {0};
    size_t len;
    set.gateway = "mill/gw-3";
    set.device = "press-7";
    set.text = text;
    set.deadline_ms = 1000;
    set.keep_alive_s = 60;
    set.attempts_max = 1;
    set.bare = true;
    CHECK(tg_ask_init(ask, &set, "b3f1-7", buffers));
    tg_ask_begin(ask, hear, heard, 0);
    tg_ask_opened(ask, 0);
    receive(ask, CONNACK, sizeof CONNACK);
    tg_ask_out(ask, &len);
    tg_ask_sent(ask, len, 1);
    receive(ask, SUBACK, sizeof SUBACK);
}

static void bare_text_is_sent(struct bytes text)
{
    uint8_t in[512], out[512];
    struct tg_buffers buffers = {in, sizeof in, out, sizeof out};
    struct tg_ask ask;
    struct heard heard = {TG_SAID_TOKEN, NULL, 0, false};
    size_t len;
    append(&text, "", 1);
    ask_bare(&ask, (const char *)text.at, &heard, &buffers);
    tg_ask_out(&ask, &len);
    text.len--;
    CHECK(len > text.len && memcmp(out + len - text.len, text.at, text.len) == 0);
    free(text.at);
}

static void a_line_is_taken(struct bytes line)
{
    uint8_t in[512], out[512], packet[512];
    struct tg_buffers buffers = {in, sizeof in, out, sizeof out};
    struct tg_publish publish = {"tg/v1/mill/gw-3/answer/press-7", NULL, 0, 9, false};
    struct tg_ask ask;
    struct heard heard = {TG_SAID_TOKEN, NULL, 0, false};
    bool refused = line.at[0] == '!';
    publish.payload = heard.expected = line.at;
    publish.payload_len = heard.len = line.len;
    ask_bare(&ask, "?", &heard, &buffers);
    receive(&ask, packet, tg_publish(packet, sizeof packet, &publish));
    CHECK(heard.same && heard.what == (refused ? TG_SAID_ERROR : TG_SAID_ANSWER));
    CHECK(ask.outcome == (refused ? TG_REFUSED : TG_ANSWERED));
    free(line.at);
}

/* ---- what a device writes ---- */

static void both_forms(const char *folder, const char *stem, const uint8_t *cbor, size_t len)
{
    char name[80], json[OUT_BYTES];
    snprintf(name, sizeof name, "%s.cbor", stem);
    CHECK(same(cbor, len, read_file(folder, name)));
    snprintf(name, sizeof name, "%s.json", stem);
    if (there(folder, name)) {
        CHECK(same((uint8_t *)json, tg_cbor_to_json(json, sizeof json, cbor, len), read_file(folder, name)));
    }
}

static void what_a_device_writes_is_there(const char *folder)
{
    struct tg_prompt least = {NULL, NULL, "turn off the lights in the packing hall", 0, 0, 0, false, false};
    struct tg_prompt full = {"b3f1-7", "action", least.input, 64, 1024, 30000, true, true};
    uint8_t out[512];
    both_forms(folder, "prompt-min", out, tg_prompt(out, sizeof out, &least));
    both_forms(folder, "prompt-device", out, tg_prompt(out, sizeof out, &full));
    both_forms(folder, "control-cancel", out, tg_control(out, sizeof out, TG_CANCEL, "b3f1-7"));
    both_forms(folder, "control-fetch", out, tg_control(out, sizeof out, TG_FETCH, "b3f1-7"));
}

/* ---- JSON that is none, and JSON of every shape ---- */

static size_t through(const char *json, char *again, size_t cap)
{
    uint8_t cbor[256];
    struct bytes exact = copy(json, strlen(json));
    size_t len = tg_json_to_cbor(cbor, sizeof cbor, (const char *)exact.at, exact.len);
    struct bytes value = copy(cbor, len);
    len = len > 0 ? tg_cbor_to_json(again, cap, value.at, value.len) : 0;
    free(exact.at);
    free(value.at);
    return len;
}

static void json_of_every_shape(void)
{
    static const char *const SAME[] = {
        "{}", "[]", "[[],{}]", "0", "-1", "18446744073709551615", "-18446744073709551615", "1.5", "-0.0", "1e-7", "5e-324",
        "true", "false", "null", "\"\"", "\"\\u0001\\n\\\"\\\\\"", "\"\xc3\xa9\"", "{\"a\":[1,{\"b\":null}],\"c\":\"\"}"};
    static const char *const OTHER[][2] = {
        {" { \"a\" : [ 1 , 2 ] } ", "{\"a\":[1,2]}"}, {"\"\\u00e9\\ud83d\\ude00\\/\"", "\"\xc3\xa9\xf0\x9f\x98\x80/\""},
        {"1E3", "1e3"}, {"0.5e1", "5.0"}, {"1e999", "null"}};
    static const char *const NONE[] = {
        "", " ", "{", "[", "]", "{]", "[}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "[1,]", "{1:2}", "01", "1.", ".5", "+1",
        "-", "1e", "tru", "nul", "\"", "\"\\x\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\u12g4\"", "\"\n\"", "1 2", "{} {}",
        "'a'", "1e9999999999999999999999999999999999999999999"};
    char again[256], deep[2 * TG_DEPTH_MAX + 4];
    size_t i;
    for (i = 0; i < sizeof SAME / sizeof SAME[0]; i++) {
        CHECK(same((uint8_t *)again, through(SAME[i], again, sizeof again), copy(SAME[i], strlen(SAME[i]))));
    }
    for (i = 0; i < sizeof OTHER / sizeof OTHER[0]; i++) {
        CHECK(same((uint8_t *)again, through(OTHER[i][0], again, sizeof again), copy(OTHER[i][1], strlen(OTHER[i][1]))));
    }
    for (i = 0; i < sizeof NONE / sizeof NONE[0]; i++) {
        CHECK(through(NONE[i], again, sizeof again) == 0);
    }
    memset(deep, '[', sizeof deep / 2);
    memset(deep + sizeof deep / 2, ']', sizeof deep / 2 - 1);
    deep[sizeof deep - 1] = '\0';
    CHECK(through(deep, again, sizeof again) == 0);
}

static void one_payload(const char *folder, const char *name, const char *kind)
{
    char stem[80], twin[96];
    size_t len = strcspn(name, ".");
    const char *end = name + len;
    snprintf(stem, sizeof stem, "%.*s", (int)len, name);
    if (strcmp(end, ".cbor") == 0) {
        snprintf(twin, sizeof twin, "%s.json", stem);
        cbor_is_read_and_written(read_file(folder, name), there(folder, twin) ? read_file(folder, twin) : copy("", 0));
    } else if (strcmp(end, ".json") == 0) {
        json_is_read_and_written(read_file(folder, name));
    } else if (strcmp(end, ".txt") == 0 && strcmp(kind, "prompt") == 0) {
        bare_text_is_sent(read_file(folder, name));
    } else if (strcmp(end, ".txt") == 0 && strcmp(kind, "line") == 0) {
        a_line_is_taken(read_file(folder, name));
    } else {
        fprintf(stderr, "%s: nothing here knows the kind %s\n", name, kind);
        CHECK(false);
    }
}

int main(int argc, char **argv)
{
    char path[1024], name[80], kind[80];
    unsigned seen = 0;
    FILE *index;
    if (argc != 2) {
        fprintf(stderr, "test_golden GOLDEN_FOLDER\n");
        return 64;
    }
    snprintf(path, sizeof path, "%s/index.txt", argv[1]);
    index = fopen(path, "r");
    while (index != NULL && fscanf(index, "%79s %79s", name, kind) == 2) {
        one_payload(argv[1], name, kind);
        seen++;
    }
    CHECK(seen > 30);
    what_a_device_writes_is_there(argv[1]);
    json_of_every_shape();
    printf("%u golden payloads, %u checks, %u failed\n", seen, checks, failures);
    return failures > 0 ? 1 : 0;
}
