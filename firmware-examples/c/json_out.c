/* CBOR to JSON, without recursion. */
#include "json.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES_MAX 32

static void put(struct tg_writer *w, const char *text)
{
    tg_put_raw(w, text, strlen(text));
}

static void put_escaped(struct tg_writer *w, const char *text, size_t len)
{
    static const char DIGITS[] = "0123456789abcdef", BYTES[] = "\"\\\b\f\n\r\t", NAMES[] = "\"\\bfnrt";
    size_t i;
    for (i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        const char *found = c == 0 ? NULL : strchr(BYTES, c);
        if (found != NULL) {
            tg_put_byte(w, '\\');
            tg_put_byte(w, (unsigned char)NAMES[found - BYTES]);
        } else if (c < 0x20) {
            put(w, "\\u00");
            tg_put_byte(w, (unsigned char)DIGITS[c >> 4]);
            tg_put_byte(w, (unsigned char)DIGITS[c & 15]);
        } else {
            tg_put_byte(w, c);
        }
    }
}

/* A text, whole or in chunks. */
static bool put_string(struct tg_writer *w, const struct tg_value *value)
{
    struct tg_items chunks;
    struct tg_value chunk;
    enum tg_status status = TG_NOT_FOUND;
    tg_put_byte(w, '"');
    if (value->text != NULL) {
        put_escaped(w, value->text, value->text_len);
    } else if (tg_open(value->raw, value->raw_len, &chunks) == TG_OK) {
        while ((status = tg_item(&chunks, &chunk)) == TG_OK && chunk.kind == TG_TEXT && chunk.text != NULL) {
            put_escaped(w, chunk.text, chunk.text_len);
        }
    }
    tg_put_byte(w, '"');
    return status == TG_NOT_FOUND;
}

static void put_whole(struct tg_writer *w, uint64_t value)
{
    char text[20];
    unsigned n = 0;
    do {
        text[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    while (n > 0) {
        tg_put_byte(w, (unsigned char)text[--n]);
    }
}

/* 1e-07 and 1e+20, as C writes them, without what nobody needs. */
static void put_shorter(struct tg_writer *w, const char *text)
{
    const char *exponent = strchr(text, 'e');
    if (exponent == NULL) {
        put(w, text);
        if (strchr(text, '.') == NULL) {
            put(w, ".0");
        }
        return;
    }
    tg_put_raw(w, text, (size_t)(exponent - text) + 1);
    exponent++;
    if (*exponent == '-') {
        tg_put_byte(w, '-');
    }
    exponent += strspn(exponent, "+-0");
    put(w, exponent);
}

/* With the fewest digits that read back as the same number. */
static void put_fraction(struct tg_writer *w, double value)
{
    char text[NUMBER_BYTES_MAX];
    int digits = 1;
    if (!(value - value == 0)) {
        put(w, "null");
        return;
    }
    do {
        snprintf(text, sizeof text, "%.*g", digits, value);
    } while (++digits <= DBL_DIG + 3 && (strtod(text, NULL) < value || strtod(text, NULL) > value));
    put_shorter(w, text);
}

static bool put_scalar(struct tg_writer *w, const struct tg_value *value)
{
    switch (value->kind) {
    case TG_UINT:
        put_whole(w, value->number);
        return true;
    case TG_NEGATIVE:
        if (value->number == UINT64_MAX) {
            put_fraction(w, value->fraction);
        } else {
            tg_put_byte(w, '-');
            put_whole(w, value->number + 1);
        }
        return true;
    case TG_FLOAT:
        put_fraction(w, value->fraction);
        return true;
    case TG_BOOL:
        put(w, value->number != 0 ? "true" : "false");
        return true;
    case TG_NULL:
        put(w, "null");
        return true;
    case TG_TEXT:
        return put_string(w, value);
    default:
        return false;
    }
}

/* What stands before an item: nothing, a comma, or a colon behind a key. `count` items of its parent came before. */
static void put_mark(struct tg_writer *w, const struct tg_items *parent, uint32_t count)
{
    if (parent->pairs && count % 2 == 1) {
        tg_put_byte(w, ':');
    } else if (count > 0) {
        tg_put_byte(w, ',');
    }
}

/* One item of the innermost, or its end. False: no form in JSON. */
static bool step(struct tg_writer *w, struct tg_items *open, uint32_t *counts, unsigned *depth)
{
    struct tg_items *top = &open[*depth - 1];
    uint32_t count = counts[*depth - 1]++;
    struct tg_value value;
    enum tg_status status = tg_item(top, &value);
    if (status == TG_NOT_FOUND) {
        tg_put_byte(w, top->pairs ? '}' : ']');
        (*depth)--;
        return !top->pairs || count % 2 == 0;
    }
    if (status != TG_OK || (top->pairs && count % 2 == 0 && value.kind != TG_TEXT)) {
        return false;
    }
    put_mark(w, top, count);
    if (value.kind != TG_MAP && value.kind != TG_ARRAY) {
        return put_scalar(w, &value);
    }
    if (*depth == TG_DEPTH_MAX || tg_open(value.raw, value.raw_len, &open[*depth]) != TG_OK) {
        return false;
    }
    tg_put_byte(w, value.kind == TG_MAP ? '{' : '[');
    counts[(*depth)++] = 0;
    return true;
}

size_t tg_cbor_to_json(char *out, size_t cap, const uint8_t *cbor, size_t len)
{
    struct tg_writer w = tg_writer((uint8_t *)out, cap);
    struct tg_items open[TG_DEPTH_MAX];
    uint32_t counts[TG_DEPTH_MAX];
    unsigned depth = 1;
    struct tg_items one;
    struct tg_value value;
    one.at = cbor;
    one.end = cbor + len;
    one.left = 1;
    one.pairs = false;
    if (!tg_whole(cbor, len) || tg_item(&one, &value) != TG_OK) {
        return 0;
    }
    if (value.kind != TG_MAP && value.kind != TG_ARRAY) {
        return put_scalar(&w, &value) ? tg_written(&w) : 0;
    }
    if (tg_open(value.raw, value.raw_len, &open[0]) != TG_OK) {
        return 0;
    }
    counts[0] = 0;
    tg_put_byte(&w, value.kind == TG_MAP ? '{' : '[');
    while (depth > 0) {
        if (!step(&w, open, counts, &depth)) {
            return 0;
        }
    }
    return tg_written(&w);
}
