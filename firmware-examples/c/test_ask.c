/*
 * Unit tests of the ask and the stream: test_ask GOLDEN_FOLDER. The gateway's side is made of bytes; the clock is a
 * number. Every buffer is on the heap with its exact size.
 */
#include "ask.h"
#include "test_bytes.h"

static const char ANSWERS[] = "tg/v1/mill/gw-3/answer/press-7";
#define IN_BYTES 400
#define OUT_BYTES 256

struct world {
    struct tg_ask ask;
    struct bytes in, out;
    unsigned said[5];
    uint32_t now;
};

static void count(void *with, enum tg_said what, const uint8_t *frame, size_t len)
{
    struct world *w = with;
    (void)frame;
    (void)len;
    w->said[what]++;
}

static struct tg_settings settings(void)
{
    struct tg_settings set = {0};
    set.gateway = "mill/gw-3";
    set.device = "press-7";
    set.text = "turn off the lights in the packing hall";
    set.deadline_ms = 30000;
    set.keep_alive_s = 10;
    set.attempts_max = 3;
    return set;
}

/* Starts at a time where the clock wraps soon. */
static void start(struct world *w, const struct tg_settings *set)
{
    struct tg_buffers buffers;
    memset(w, 0, sizeof *w);
    w->now = UINT32_MAX - 500;
    w->in = copy("", 0);
    free(w->in.at);
    w->in.at = malloc(IN_BYTES);
    w->out.at = malloc(OUT_BYTES);
    buffers.in = w->in.at;
    buffers.in_cap = IN_BYTES;
    buffers.out = w->out.at;
    buffers.out_cap = OUT_BYTES;
    CHECK(tg_ask_init(&w->ask, set, "b3f1-7", &buffers));
    tg_ask_begin(&w->ask, count, w, w->now);
    CHECK(w->ask.wants == TG_WANTS_LINK);
}

static void stop(struct world *w)
{
    free(w->in.at);
    free(w->out.at);
}

static void later(struct world *w, uint32_t ms)
{
    w->now += ms;
    tg_ask_tick(&w->ask, w->now);
}

/* The first byte of what the device sends; all of it is gone then. */
static unsigned sent(struct world *w)
{
    size_t len;
    unsigned first = tg_ask_out(&w->ask, &len)[0];
    tg_ask_sent(&w->ask, len, w->now);
    return len > 0 ? first : 0;
}

static void give(struct world *w, const void *bytes, size_t len)
{
    size_t space;
    uint8_t *at = tg_ask_space(&w->ask, &space);
    CHECK(space >= len);
    memcpy(at, bytes, len);
    tg_ask_received(&w->ask, len, w->now);
}

static void give_frame(struct world *w, const char *golden, const char *name)
{
    struct bytes frame = read_file(golden, name);
    uint8_t packet[IN_BYTES];
    struct tg_publish p = {ANSWERS, frame.at, frame.len, 9, false};
    give(w, packet, tg_publish(packet, sizeof packet, &p));
    free(frame.at);
}

/* As far as the prompt that was sent. */
static void connect_and_ask(struct world *w)
{
    tg_ask_opened(&w->ask, w->now);
    CHECK(sent(w) == 0x10);
    give(w, "\x20\2\0\0", 4);
    CHECK(sent(w) == 0x82);
    give(w, "\x90\3\0\1\1", 5);
}

static void the_way_of_a_prompt(const char *golden)
{
    struct tg_settings set = settings();
    struct world w;
    start(&w, &set);
    connect_and_ask(&w);
    CHECK(sent(&w) == 0x32);
    give(&w, "\x40\2\0\2", 4);
    give_frame(&w, golden, "accepted.cbor");
    give_frame(&w, golden, "answer-provisional.cbor");
    CHECK(w.ask.outcome == TG_UNDECIDED && w.said[TG_SAID_ACCEPTED] == 1 && w.said[TG_SAID_PROVISIONAL] == 1);
    CHECK(sent(&w) == 0x40);
    give_frame(&w, golden, "answer-text.cbor");
    CHECK(w.ask.outcome == TG_ANSWERED && w.ask.wants == TG_WANTS_IO && sent(&w) == 0x40);
    CHECK(w.ask.wants == TG_WANTS_SHUT);
    tg_ask_closed(&w.ask, "", w.now);
    CHECK(w.ask.wants == TG_WANTS_END && w.said[TG_SAID_ANSWER] == 1 && w.ask.dropped == 0);
    stop(&w);
}

static void an_error_is_an_outcome_and_busy_is_not(const char *golden)
{
    struct tg_settings set = settings();
    struct world w;
    start(&w, &set);
    connect_and_ask(&w);
    CHECK(sent(&w) == 0x32);
    give_frame(&w, golden, "error.cbor");
    CHECK(w.ask.outcome == TG_UNDECIDED && sent(&w) == 0x40);
    later(&w, 4999);
    CHECK(sent(&w) == 0);
    later(&w, 1);
    CHECK(sent(&w) == 0x32);
    give_frame(&w, golden, "error.cbor");
    CHECK(w.ask.outcome == TG_UNDECIDED && sent(&w) == 0x40);
    later(&w, 5000);
    CHECK(sent(&w) == 0x32);
    give_frame(&w, golden, "error.cbor");
    CHECK(w.ask.outcome == TG_REFUSED && w.said[TG_SAID_ERROR] == 3);
    stop(&w);
}

static void what_makes_no_sense_is_dropped_and_acknowledged(const char *golden)
{
    struct tg_settings set = settings();
    struct bytes frame = read_file(golden, "answer-text.cbor");
    struct tg_publish p = {ANSWERS, frame.at, 0, 9, false};
    uint8_t packet[IN_BYTES];
    struct world w;
    start(&w, &set);
    connect_and_ask(&w);
    CHECK(sent(&w) == 0x32);
    for (p.payload_len = 0; p.payload_len < frame.len; p.payload_len++) {
        give(&w, packet, tg_publish(packet, sizeof packet, &p));
        CHECK(w.ask.outcome == TG_UNDECIDED && sent(&w) == 0x40 && w.ask.dropped == p.payload_len + 1);
    }
    p.topic = "tg/v1/mill/gw-3/answer/press-8";
    give(&w, packet, tg_publish(packet, sizeof packet, &p));
    CHECK(w.ask.outcome == TG_UNDECIDED && w.said[TG_SAID_ANSWER] == 0);
    free(frame.at);
    stop(&w);
}

static void every_wait_ends(void)
{
    struct tg_settings set = settings();
    struct world w;
    unsigned attempt;
    /* No connection, ever. */
    start(&w, &set);
    for (attempt = 0; attempt < 3; attempt++) {
        CHECK(w.ask.wants == TG_WANTS_LINK && w.ask.outcome == TG_UNDECIDED);
        tg_ask_closed(&w.ask, "no connection", w.now);
        later(&w, TG_PAUSE_MS << attempt);
    }
    CHECK(w.ask.wants == TG_WANTS_END && w.ask.outcome == TG_UNREACHABLE && strcmp(w.ask.why, "no connection") == 0);
    stop(&w);
    /* A connection, and no word. */
    start(&w, &set);
    tg_ask_opened(&w.ask, w.now);
    sent(&w);
    later(&w, TG_STEP_MS);
    CHECK(w.ask.wants == TG_WANTS_SHUT && w.ask.outcome == TG_UNDECIDED);
    tg_ask_closed(&w.ask, "", w.now);
    later(&w, 32000 - TG_STEP_MS);
    CHECK(w.ask.wants == TG_WANTS_END && w.ask.outcome == TG_UNREACHABLE);
    stop(&w);
    /* A prompt, and no outcome: pings while there is a deadline to wait for. */
    start(&w, &set);
    connect_and_ask(&w);
    sent(&w);
    later(&w, 5000);
    CHECK(sent(&w) == 0xc0);
    give(&w, "\xd0\0", 2);
    later(&w, 26999);
    CHECK(w.ask.outcome == TG_UNDECIDED);
    later(&w, 1);
    CHECK(w.ask.outcome == TG_SILENT);
    stop(&w);
    /* No answer to a ping. */
    start(&w, &set);
    connect_and_ask(&w);
    sent(&w);
    later(&w, 5000);
    CHECK(sent(&w) == 0xc0);
    later(&w, 5000);
    CHECK(w.ask.wants == TG_WANTS_SHUT);
    stop(&w);
}

static void the_gateways_word_may_take_its_grace(void)
{
    struct tg_settings set = settings();
    struct world w;
    set.grace_ms = 60000;
    start(&w, &set);
    connect_and_ask(&w);
    sent(&w);
    give(&w, "\x40\2\0\2", 4);
    w.ask.set.keep_alive_s = 600;
    later(&w, 30000 + 59999);
    CHECK(w.ask.outcome == TG_UNDECIDED);
    later(&w, 1);
    CHECK(w.ask.outcome == TG_SILENT);
    stop(&w);
}

/* The outcome of an earlier prompt, asked in CBOR, comes to a session that now asks in bare text. */
static void a_frame_is_no_line(const char *golden)
{
    struct tg_settings set = settings();
    struct world w;
    set.bare = true;
    start(&w, &set);
    connect_and_ask(&w);
    sent(&w);
    give_frame(&w, golden, "answer-text.cbor");
    CHECK(w.ask.outcome == TG_UNDECIDED && w.ask.dropped == 1 && sent(&w) == 0x40);
    give_frame(&w, golden, "answer-text.txt");
    CHECK(w.ask.outcome == TG_ANSWERED && w.said[TG_SAID_ANSWER] == 1);
    stop(&w);
}

static void refusals_are_final(void)
{
    struct tg_settings set = settings();
    struct world w;
    start(&w, &set);
    tg_ask_opened(&w.ask, w.now);
    sent(&w);
    give(&w, "\x20\2\0\4", 4);
    CHECK(w.ask.outcome == TG_REFUSED && strcmp(w.ask.why, "wrong user name or password") == 0);
    stop(&w);
    start(&w, &set);
    tg_ask_opened(&w.ask, w.now);
    sent(&w);
    give(&w, "\x20\2\0\0", 4);
    sent(&w);
    give(&w, "\x90\3\0\1\x80", 5);
    CHECK(w.ask.outcome == TG_REFUSED);
    stop(&w);
}

static void a_new_connection_repeats_the_prompt_until_it_is_acknowledged(void)
{
    struct tg_settings set = settings();
    struct world w;
    struct bytes prompt;
    size_t len;
    start(&w, &set);
    connect_and_ask(&w);
    tg_ask_out(&w.ask, &len);
    prompt = copy(tg_ask_out(&w.ask, &len), len);
    sent(&w);
    tg_ask_closed(&w.ask, "broke", w.now);
    CHECK(w.ask.wants == TG_WANTS_TIME);
    later(&w, TG_PAUSE_MS);
    CHECK(w.ask.wants == TG_WANTS_LINK);
    connect_and_ask(&w);
    tg_ask_out(&w.ask, &len);
    CHECK(len == prompt.len && memcmp(tg_ask_out(&w.ask, &len), prompt.at, len) == 0);
    sent(&w);
    give(&w, "\x40\2\0\2", 4);
    tg_ask_closed(&w.ask, "broke", w.now);
    later(&w, 2 * TG_PAUSE_MS);
    connect_and_ask(&w);
    tg_ask_out(&w.ask, &len);
    CHECK(len == 0 && w.ask.outcome == TG_UNDECIDED);
    free(prompt.at);
    stop(&w);
}

static size_t token(uint8_t *out, unsigned attempt, unsigned seq, const char *text)
{
    uint8_t *at = out;
    size_t len = strlen(text);
    memcpy(at, "\xa3\x67" "attempt", 9);
    at += 9;
    *at++ = (uint8_t)attempt;
    memcpy(at, "\x63seq", 4);
    at += 4;
    *at++ = (uint8_t)seq;
    memcpy(at, "\x64text", 5);
    at += 5;
    *at++ = (uint8_t)(0x60 | len);
    memcpy(at, text, len);
    return (size_t)(at - out) + len;
}

static void pieces_are_put_together(void)
{
    struct bytes room = copy("01234567", 8);
    struct tg_stream s;
    uint8_t f[64];
    tg_stream_init(&s, (char *)room.at, room.len);
    CHECK(tg_stream_add(&s, f, token(f, 1, 0, "ab")) && tg_stream_add(&s, f, token(f, 1, 1, "cd")));
    CHECK(s.len == 4 && memcmp(s.buf, "abcd", 4) == 0);
    CHECK(!tg_stream_add(&s, f, token(f, 1, 1, "cd")) && s.len == 4);
    CHECK(!tg_stream_add(&s, f, token(f, 1, 3, "gh")) && s.gap);
    CHECK(!tg_stream_add(&s, f, token(f, 1, 2, "ef")) && s.len == 4);
    CHECK(tg_stream_add(&s, f, token(f, 2, 0, "xyz")) && s.len == 3 && !s.gap);
    CHECK(!tg_stream_add(&s, f, token(f, 1, 1, "no")) && s.len == 3);
    CHECK(!tg_stream_add(&s, f, token(f, 2, 1, "far too long")) && s.gap && s.len == 3);
    CHECK(!tg_stream_add(&s, (const uint8_t *)"\xa0", 1));
    free(room.at);
}

static void ids_are_made_of_boot_number_and_counter(void)
{
    char *id = malloc(TG_ID_BYTES);
    tg_make_id(id, 0xb3f1a204u, 7);
    CHECK(strcmp(id, "b3f1a204-7") == 0);
    tg_make_id(id, 0, UINT32_MAX);
    CHECK(strcmp(id, "00000000-4294967295") == 0);
    free(id);
}

static void what_does_not_fit_is_said_at_the_start(void)
{
    struct tg_settings set = settings();
    struct tg_ask ask;
    struct tg_buffers buffers;
    size_t cap;
    bool fits = false;
    for (cap = 0; cap < 300; cap++) {
        struct bytes out = copy("", 0), in = copy("", 0);
        out.at = realloc(out.at, cap + 1);
        in.at = realloc(in.at, IN_BYTES);
        buffers.in = in.at;
        buffers.in_cap = IN_BYTES;
        buffers.out = out.at;
        buffers.out_cap = cap;
        CHECK(!fits || tg_ask_init(&ask, &set, "b3f1-7", &buffers));
        fits = tg_ask_init(&ask, &set, "b3f1-7", &buffers);
        free(out.at);
        free(in.at);
    }
    CHECK(fits);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "test_ask GOLDEN_FOLDER\n");
        return 64;
    }
    the_way_of_a_prompt(argv[1]);
    an_error_is_an_outcome_and_busy_is_not(argv[1]);
    what_makes_no_sense_is_dropped_and_acknowledged(argv[1]);
    every_wait_ends();
    the_gateways_word_may_take_its_grace();
    a_frame_is_no_line(argv[1]);
    refusals_are_final();
    a_new_connection_repeats_the_prompt_until_it_is_acknowledged();
    pieces_are_put_together();
    ids_are_made_of_boot_number_and_counter();
    what_does_not_fit_is_said_at_the_start();
    printf("%u checks of the ask, %u failed\n", checks, failures);
    return failures > 0 ? 1 : 0;
}
