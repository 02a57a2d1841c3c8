#include "show.h"

#include <stdio.h>

static void show_value(const struct tg_value *v);

static void show_text(const char *text, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++) {
        if (text[i] == '\n' || text[i] == '\r' || text[i] == '\\') {
            putchar('\\');
        }
        putchar(text[i] == '\n' ? 'n' : text[i] == '\r' ? 'r' : text[i]);
    }
}

static void show_string(const struct tg_value *v)
{
    static const char DIGITS[] = "0123456789abcdef";
    size_t i;
    putchar('"');
    for (i = 0; v->text != NULL && i < v->text_len; i++) {
        unsigned char c = (unsigned char)v->text[i];
        if (c == '"' || c == '\\') {
            putchar('\\');
            putchar(c);
        } else if (c < 0x20) {
            fputs("\\u00", stdout);
            putchar(DIGITS[c >> 4]);
            putchar(DIGITS[c & 15u]);
        } else {
            putchar(c);
        }
    }
    putchar('"');
}

/* By hand: the printf of small C libraries knows neither 64 bits nor fractions. */
static void show_unsigned(uint64_t n)
{
    char digits[20];
    size_t len = 0;
    do {
        digits[len++] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    while (len > 0) {
        putchar(digits[--len]);
    }
}

/* Four decimals, as confidence has them. */
static void show_fraction(double x)
{
    uint64_t scaled;
    unsigned place;
    if (!(x > -1e15 && x < 1e15)) {
        fputs("null", stdout);
        return;
    }
    if (x < 0) {
        putchar('-');
        x = -x;
    }
    scaled = (uint64_t)(x * 10000.0 + 0.5);
    show_unsigned(scaled / 10000);
    scaled %= 10000;
    if (scaled > 0) {
        putchar('.');
    }
    for (place = 1000; scaled > 0; scaled %= place, place /= 10) {
        putchar((int)('0' + scaled / place));
    }
}

/* As deep as TG_DEPTH_MAX at most: the value was looked through when it was found. */
static void show_items(const struct tg_value *v, bool map)
{
    struct tg_items items;
    struct tg_value item;
    size_t n = 0;
    putchar(map ? '{' : '[');
    if (tg_open(v->raw, v->raw_len, &items) == TG_OK) {
        for (; tg_item(&items, &item) == TG_OK; n++) {
            if (n > 0) {
                putchar(map && n % 2 == 1 ? ':' : ',');
            }
            show_value(&item);
        }
    }
    putchar(map ? '}' : ']');
}

static void show_value(const struct tg_value *v)
{
    switch (v->kind) {
    case TG_UINT:
        show_unsigned(v->number);
        break;
    case TG_NEGATIVE:
    case TG_FLOAT:
        show_fraction(v->fraction);
        break;
    case TG_TEXT:
    case TG_BYTES:
        show_string(v);
        break;
    case TG_ARRAY:
    case TG_MAP:
        show_items(v, v->kind == TG_MAP);
        break;
    case TG_BOOL:
        fputs(v->number != 0 ? "true" : "false", stdout);
        break;
    case TG_NULL:
        fputs("null", stdout);
        break;
    }
}

static void show_field(const uint8_t *frame, size_t len, const char *key)
{
    struct tg_value v;
    if (tg_find(frame, len, key, &v) != TG_OK) {
        putchar('-');
    } else if (v.kind == TG_TEXT && v.text != NULL) {
        show_text(v.text, v.text_len);
    } else {
        show_value(&v);
    }
}

static void show_body(struct show *show, const uint8_t *frame, size_t len)
{
    struct tg_value v;
    size_t text_len;
    if (tg_find(frame, len, "text", &v) != TG_OK) {
        show_field(frame, len, "json");
    } else if (v.text != NULL) {
        show_text(v.text, v.text_len);
    } else if (tg_text(&v, show->text, sizeof show->text, &text_len)) {
        show_text(show->text, text_len);
    }
}

void show_frame(void *with, enum tg_said what, const uint8_t *frame, size_t len)
{
    struct show *show = with;
    static const char *const WORDS[] = {"accepted ", "token ", "provisional ", "answer ", "error "};
    if (what == TG_SAID_TOKEN && !tg_stream_add(&show->stream, frame, len)) {
        return;
    }
    fputs(WORDS[what], stdout);
    if (show->bare) {
        fputs(what == TG_SAID_ANSWER ? "- " : "", stdout);
        show_text((const char *)frame, len);
    } else if (what == TG_SAID_ACCEPTED) {
        show_field(frame, len, "position");
    } else if (what == TG_SAID_TOKEN) {
        show_text(show->stream.buf, show->stream.len);
    } else if (what == TG_SAID_ERROR) {
        show_field(frame, len, "code");
        putchar(' ');
        show_field(frame, len, "message");
    } else {
        show_field(frame, len, "route");
        putchar(' ');
        show_body(show, frame, len);
    }
    putchar('\n');
    fflush(stdout);
}

void show_init(struct show *show, bool bare)
{
    show->bare = bare;
    tg_stream_init(&show->stream, show->text, sizeof show->text);
}

void show_end(const struct tg_ask *ask)
{
    if (ask->dropped > 0) {
        printf("dropped %u\n", (unsigned)ask->dropped);
    }
    printf("end %d %s\n", (int)ask->outcome, ask->why);
    fflush(stdout);
}
