#include "print.h"
#include "tidegate.h"

#include <stdio.h>

static void print_value(const struct tg_value *v);

static void print_string(const struct tg_value *v)
{
    size_t i;
    putchar('"');
    for (i = 0; i < v->text_len; i++) {
        unsigned char c = (unsigned char)v->text[i];
        if (c == '"' || c == '\\') {
            printf("\\%c", c);
        } else if (c < 0x20) {
            printf("\\u%04x", c);
        } else {
            putchar(c);
        }
    }
    putchar('"');
}

/* As deep as TG_DEPTH_MAX at most: the value was looked through when it was found. */
static void print_items(const struct tg_value *v, bool map)
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
            print_value(&item);
        }
    }
    putchar(map ? '}' : ']');
}

static void print_value(const struct tg_value *v)
{
    switch (v->kind) {
    case TG_UINT:
        printf("%llu", (unsigned long long)v->number);
        break;
    case TG_NEGATIVE:
    case TG_FLOAT:
        printf("%.17g", v->fraction);
        break;
    case TG_TEXT:
    case TG_BYTES:
        print_string(v);
        break;
    case TG_ARRAY:
    case TG_MAP:
        print_items(v, v->kind == TG_MAP);
        break;
    case TG_BOOL:
        fputs(v->number != 0 ? "true" : "false", stdout);
        break;
    case TG_NULL:
        fputs("null", stdout);
        break;
    }
}

static void print_field(const uint8_t *frame, size_t len, const char *key)
{
    struct tg_value v;
    if (tg_find(frame, len, key, &v) == TG_OK && v.kind == TG_TEXT) {
        fprintf(stderr, "%s %.*s  ", key, (int)v.text_len, v.text);
    }
}

bool print_answer(const uint8_t *frame, size_t len)
{
    struct tg_value v, total;
    if (tg_find(frame, len, "text", &v) == TG_OK && v.kind == TG_TEXT) {
        fwrite(v.text, 1, v.text_len, stdout);
    } else if (tg_find(frame, len, "json", &v) == TG_OK) {
        print_value(&v);
    } else {
        return false;
    }
    putchar('\n');
    print_field(frame, len, "route");
    print_field(frame, len, "reason");
    print_field(frame, len, "model");
    if (tg_find(frame, len, "confidence", &v) == TG_OK) {
        fprintf(stderr, "confidence %.4f  ", v.fraction);
    }
    if (tg_find(frame, len, "timing", &v) == TG_OK && tg_find(v.raw, v.raw_len, "total_ms", &total) == TG_OK) {
        fprintf(stderr, "%llu ms", (unsigned long long)total.number);
    }
    fputc('\n', stderr);
    return true;
}

void print_error(const uint8_t *frame, size_t len)
{
    struct tg_value code, message;
    if (tg_find(frame, len, "code", &code) == TG_OK && code.kind == TG_TEXT
        && tg_find(frame, len, "message", &message) == TG_OK && message.kind == TG_TEXT) {
        fprintf(stderr, "%.*s: %.*s\n", (int)code.text_len, code.text, (int)message.text_len, message.text);
    }
}
