/*
 * Any bytes through all that reads bytes of others: a libFuzzer target, or, with FUZZ_ALONE, a program that makes its own
 * inputs: fuzz GOLDEN_FOLDER ROUNDS. Under the sanitisers every byte read or written outside is a crash.
 */
#include "ask.h"
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void look(void *with, enum tg_said what, const uint8_t *frame, size_t len)
{
    struct tg_value v;
    (void)what;
    tg_find(frame, len, "timing", &v);
    tg_find(frame, len, "no such key", &v);
    tg_stream_add(with, frame, len);
}

/* The bytes come as from a network after a subscription, in pieces that the first byte sizes. */
static void through_the_ask(const uint8_t *bytes, size_t len)
{
    static const uint8_t OPENING[] = {0x20, 2, 0, 0, 0x90, 3, 0, 1, 1};
    struct tg_settings set = {0};
    struct tg_buffers buffers;
    struct tg_stream stream;
    struct tg_ask ask;
    uint8_t *in = malloc(300), *out = malloc(300), *at;
    char *text = malloc(40);
    size_t sent = 0, space, piece = len > 0 ? 1 + bytes[0] % 90u : 1;
    uint32_t now = 0;
    set.gateway = "a/b";
    set.device = "c";
    set.text = "d";
    set.deadline_ms = 1000000;
    set.keep_alive_s = 60;
    set.attempts_max = 2;
    buffers.in = in;
    buffers.in_cap = 300;
    buffers.out = out;
    buffers.out_cap = 300;
    tg_stream_init(&stream, text, 40);
    if (tg_ask_init(&ask, &set, "b3f1-7", &buffers)) {
        tg_ask_begin(&ask, look, &stream, now);
        tg_ask_opened(&ask, now);
        at = tg_ask_space(&ask, &space);
        memcpy(at, OPENING, sizeof OPENING);
        tg_ask_received(&ask, sizeof OPENING, now);
        while (sent < len && ask.wants == TG_WANTS_IO) {
            tg_ask_out(&ask, &space);
            tg_ask_sent(&ask, space, ++now);
            at = tg_ask_space(&ask, &space);
            space = space < piece ? space : piece;
            space = space < len - sent ? space : len - sent;
            memcpy(at, bytes + sent, space);
            sent += space;
            tg_ask_received(&ask, space, now);
        }
    }
    free(in);
    free(out);
    free(text);
}

/* Either way; what one of them writes, the other reads. */
static void through_json(const uint8_t *bytes, size_t len)
{
    char *json = malloc(600);
    uint8_t *cbor = malloc(600);
    size_t written = tg_cbor_to_json(json, 600, bytes, len);
    if (written > 0 && tg_json_to_cbor(cbor, 600, json, written) == 0 && written < 300) {
        abort();
    }
    written = tg_json_to_cbor(cbor, 600, (const char *)bytes, len);
    if (written > 0 && !tg_whole(cbor, written)) {
        abort();
    }
    free(json);
    free(cbor);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct tg_items items;
    struct tg_value v;
    through_json(bytes, len);
    through_the_ask(bytes, len);
    tg_whole(bytes, len);
    if (tg_open(bytes, len, &items) == TG_OK) {
        while (tg_item(&items, &v) == TG_OK) {
        }
    }
    return 0;
}

#ifdef FUZZ_ALONE
static uint32_t dice(void)
{
    static uint32_t x = 20261121;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return x;
}

/* Publishes of golden frames, damaged. */
static size_t invent(uint8_t *out, size_t cap, const char *folder)
{
    static const char *const FRAMES[] = {"accepted", "token", "answer-text", "answer-json", "answer-provisional", "error"};
    char path[512];
    uint8_t frame[1024];
    struct tg_publish p = {"tg/v1/a/b/answer/c", frame, 0, 9, false};
    size_t len = 0, got, i;
    unsigned packets = 1 + dice() % 3;
    while (packets-- > 0) {
        FILE *file;
        snprintf(path, sizeof path, "%s/%s.cbor", folder, FRAMES[dice() % 6]);
        file = fopen(path, "rb");
        if (file == NULL) {
            perror(path);
            exit(64);
        }
        p.payload_len = fread(frame, 1, sizeof frame, file);
        fclose(file);
        got = tg_publish(out + len, cap - len, &p);
        len += got;
    }
    for (i = dice() % 6; i > 0; i--) {
        out[dice() % len] = (uint8_t)dice();
    }
    return dice() % 4 == 0 ? dice() % len : len;
}

int main(int argc, char **argv)
{
    uint8_t input[4096];
    unsigned long rounds = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    if (rounds == 0) {
        fprintf(stderr, "fuzz GOLDEN_FOLDER ROUNDS\n");
        return 64;
    }
    while (rounds-- > 0) {
        size_t len = invent(input, sizeof input, argv[1]);
        uint8_t *exact = malloc(len > 0 ? len : 1);
        memcpy(exact, input, len);
        LLVMFuzzerTestOneInput(exact, len);
        free(exact);
    }
    printf("fuzz: no byte outside\n");
    return 0;
}
#endif
