/* JSON to CBOR, in one pass and without recursion. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

/* Longest number that is read; no double needs more digits. */
#define NUMBER_BYTES_MAX 40

struct source {
    const char *at;
    const char *end;
    struct tg_writer w;
};

static char peek(struct source *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r')) {
        s->at++;
    }
    return s->at < s->end ? *s->at : '\0';
}

static bool take(struct source *s, char expected)
{
    if (peek(s) != expected || s->at == s->end) {
        return false;
    }
    s->at++;
    return true;
}

static bool hex4(const char *at, const char *end, uint32_t *value)
{
    unsigned i;
    *value = 0;
    if (end - at < 4) {
        return false;
    }
    for (i = 0; i < 4; i++) {
        char c = at[i];
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0')
            : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10u : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10u : 16u;
        if (digit > 15) {
            return false;
        }
        *value = *value << 4 | digit;
    }
    return true;
}

static size_t utf8(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* \uXXXX behind its `u`, with its second half where it is a pair. 0: half a pair, or no hexadecimal. */
static size_t escaped_code(const char **at, const char *end, char out[4])
{
    uint32_t code, low;
    if (!hex4(*at, end, &code)) {
        return 0;
    }
    *at += 4;
    if (code >= 0xd800 && code < 0xdc00) {
        if (end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u' || !hex4(*at + 2, end, &low) || low < 0xdc00
            || low > 0xdfff) {
            return 0;
        }
        *at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code < 0xe000) {
        return 0;
    }
    return utf8(code, out);
}

/* What a backslash stands before; 0: nothing known. */
static size_t escaped(const char **at, const char *end, char out[4])
{
    static const char NAMES[] = "\"\\/bfnrt", BYTES[] = "\"\\/\b\f\n\r\t";
    const char *found;
    if (*at == end) {
        return 0;
    }
    if (**at == 'u') {
        (*at)++;
        return escaped_code(at, end, out);
    }
    found = **at == '\0' ? NULL : strchr(NAMES, **at);
    if (found == NULL) {
        return 0;
    }
    (*at)++;
    out[0] = BYTES[found - NAMES];
    return 1;
}

/* The next piece of a string, 1 to 4 bytes; 0 at its closing quote, and where it is broken: there it stays. */
static size_t piece(const char **at, const char *end, char out[4])
{
    const char *behind;
    size_t n;
    if (*at >= end || **at == '"' || (unsigned char)**at < 0x20) {
        return 0;
    }
    if (**at != '\\') {
        out[0] = *(*at)++;
        return 1;
    }
    behind = *at + 1;
    n = escaped(&behind, end, out);
    *at = n > 0 ? behind : *at;
    return n;
}

/* A string, its opening quote is next. Twice through it: its length comes first. */
static bool string(struct source *s)
{
    const char *at;
    size_t len = 0, n;
    char bytes[4];
    if (!take(s, '"')) {
        return false;
    }
    for (at = s->at; (n = piece(&at, s->end, bytes)) > 0;) {
        len += n;
    }
    if (at >= s->end || *at != '"') {
        return false;
    }
    tg_put_head(&s->w, 3, len);
    while ((n = piece(&s->at, s->end, bytes)) > 0) {
        tg_put_raw(&s->w, bytes, n);
    }
    s->at++;
    return true;
}

static bool digits(const char **at)
{
    const char *first = *at;
    while (**at >= '0' && **at <= '9') {
        (*at)++;
    }
    return *at > first;
}

/* RFC 8259 §6. `text` ends in NUL. */
static bool is_number(const char *text, bool *whole)
{
    *whole = true;
    text += *text == '-' ? 1 : 0;
    if (*text == '0' && text[1] >= '0' && text[1] <= '9') {
        return false;
    }
    if (!digits(&text)) {
        return false;
    }
    if (*text == '.') {
        *whole = false;
        text++;
        if (!digits(&text)) {
            return false;
        }
    }
    if (*text == 'e' || *text == 'E') {
        *whole = false;
        text += text[1] == '+' || text[1] == '-' ? 2 : 1;
        if (!digits(&text)) {
            return false;
        }
    }
    return *text == '\0';
}

/* A whole number without its sign. False: more than 64 bits. */
static bool whole_number(const char *text, uint64_t *value)
{
    for (*value = 0; *text != '\0'; text++) {
        unsigned digit = (unsigned)(*text - '0');
        if (*value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        *value = *value * 10 + digit;
    }
    return true;
}

static bool number(struct source *s)
{
    char text[NUMBER_BYTES_MAX];
    size_t len = 0;
    uint64_t value;
    bool whole, minus;
    while (s->at < s->end && strchr("+-.0123456789eE", *s->at) != NULL && *s->at != '\0') {
        if (len == sizeof text - 1) {
            return false;
        }
        text[len++] = *s->at++;
    }
    text[len] = '\0';
    if (!is_number(text, &whole)) {
        return false;
    }
    minus = text[0] == '-';
    if (whole && whole_number(text + (minus ? 1 : 0), &value) && !(minus && value == 0)) {
        tg_put_head(&s->w, minus ? 1 : 0, minus ? value - 1 : value);
    } else {
        tg_put_float(&s->w, strtod(text, NULL));
    }
    return true;
}

static bool word(struct source *s, const char *expected)
{
    size_t len = strlen(expected);
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, expected, len) != 0) {
        return false;
    }
    s->at += len;
    return true;
}

static bool scalar(struct source *s)
{
    switch (peek(s)) {
    case '"':
        return string(s);
    case 't':
        tg_put_bool(&s->w, true);
        return word(s, "true");
    case 'f':
        tg_put_bool(&s->w, false);
        return word(s, "false");
    case 'n':
        tg_put_null(&s->w);
        return word(s, "null");
    default:
        return number(s);
    }
}

/* Behind a value: closes what ends here, and goes to the next value. False: broken. `depth` 0 is the end. */
static bool go_on(struct source *s, const char *closers, unsigned *depth)
{
    while (*depth > 0) {
        if (take(s, ',')) {
            return closers[*depth - 1] == ']' || (string(s) && take(s, ':'));
        }
        if (!take(s, closers[*depth - 1])) {
            return false;
        }
        tg_put_close(&s->w);
        (*depth)--;
    }
    return true;
}

/* `{` or `[` is next. False: broken or too deep. `*empty`: it is closed already. */
static bool open(struct source *s, char *closers, unsigned *depth, bool *empty)
{
    bool map = peek(s) == '{';
    if (*depth == TG_DEPTH_MAX) {
        return false;
    }
    s->at++;
    closers[(*depth)++] = map ? '}' : ']';
    tg_put_open(&s->w, map ? TG_MAP : TG_ARRAY);
    *empty = peek(s) == closers[*depth - 1];
    return *empty || !map || (string(s) && take(s, ':'));
}

size_t tg_json_to_cbor(uint8_t *out, size_t cap, const char *json, size_t len)
{
    struct source s;
    char closers[TG_DEPTH_MAX];
    unsigned depth = 0;
    s.at = json;
    s.end = json + len;
    s.w = tg_writer(out, cap);
    do {
        char c = peek(&s);
        bool fresh = false;
        if (c == '{' || c == '[') {
            bool empty;
            if (!open(&s, closers, &depth, &empty)) {
                return 0;
            }
            fresh = !empty;
        } else if (!scalar(&s)) {
            return 0;
        }
        if (!fresh && !go_on(&s, closers, &depth)) {
            return 0;
        }
    } while (depth > 0);
    peek(&s);
    return s.at == s.end ? tg_written(&s.w) : 0;
}
