/* CBOR (RFC 8949): the fields of a frame, without a tree. Only looks; never past the end, never by recursion. */
#include "tidegate.h"

#include <float.h>
#include <string.h>

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

struct head {
    unsigned major; /* 0 to 7 */
    unsigned info;  /* the low five bits */
    uint64_t value; /* TG_INDEFINITE for an indefinite length */
};

/* The first byte of an item and the number that belongs to it. False: cut off or reserved. */
static bool read_head(struct cursor *c, struct head *h)
{
    size_t bytes;
    if (c->at == c->end) {
        return false;
    }
    h->major = *c->at >> 5;
    h->info = *c->at & 0x1fu;
    h->value = h->info;
    c->at++;
    if (h->info < 24) {
        return true;
    }
    if (h->info == 31) {
        h->value = TG_INDEFINITE;
        return h->major >= 2 && h->major <= 5;
    }
    bytes = (size_t)1 << (h->info - 24);
    if (h->info > 27 || bytes > (size_t)(c->end - c->at)) {
        return false;
    }
    for (h->value = 0; bytes > 0; bytes--) {
        h->value = h->value << 8 | *c->at++;
    }
    return true;
}

/* Items that an item of this head holds, itself not counted. False: more than bytes are left, so it is cut off. */
static bool count_inner(struct cursor *c, const struct head *h, uint64_t *inner)
{
    uint64_t left = (uint64_t)(c->end - c->at);
    *inner = 0;
    if (h->major < 2 || h->major == 7) {
        return true;
    }
    if (h->major == 6) {
        *inner = 1;
        return true;
    }
    if (h->value == TG_INDEFINITE) {
        *inner = TG_INDEFINITE;
        return true;
    }
    if (h->value > left) {
        return false;
    }
    if (h->major < 4) {
        c->at += (size_t)h->value;
        return true;
    }
    *inner = h->major == 5 ? 2 * h->value : h->value;
    return *inner <= left;
}

/* Moves behind one whole item. */
static bool skip_item(struct cursor *c)
{
    uint64_t open[TG_DEPTH_MAX];
    unsigned depth = 1;
    struct head h;
    open[0] = 1;
    while (depth > 0) {
        uint64_t *left = &open[depth - 1];
        uint64_t inner;
        if (*left == 0) {
            depth--;
            continue;
        }
        if (*left == TG_INDEFINITE && c->at < c->end && *c->at == 0xff) {
            c->at++;
            depth--;
            continue;
        }
        if (!read_head(c, &h) || !count_inner(c, &h, &inner)) {
            return false;
        }
        if (*left != TG_INDEFINITE) {
            (*left)--;
        }
        if (inner > 0) {
            if (depth == TG_DEPTH_MAX) {
                return false;
            }
            open[depth++] = inner;
        }
    }
    return true;
}

#if DBL_MANT_DIG == 53
static double from_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
#else
/* A `double` of 32 bits, as on AVR: the nearest below; too large is infinite, too small is zero. */
static double from_double(uint64_t bits)
{
    uint32_t sign = (uint32_t)(bits >> 32) & 0x80000000u;
    int exponent = (int)(bits >> 52 & 0x7ffu) - 1023 + 127;
    uint32_t fraction = (uint32_t)(bits >> 29) & 0x7fffffu;
    uint32_t single;
    float value;
    if ((bits >> 52 & 0x7ffu) == 0x7ffu) {
        single = 0x7f800000u | ((bits & UINT64_C(0xfffffffffffff)) != 0 ? 0x400000u : 0);
    } else if (exponent >= 255) {
        single = 0x7f800000u;
    } else {
        single = exponent <= 0 ? 0 : (uint32_t)exponent << 23 | fraction;
    }
    single |= sign;
    memcpy(&value, &single, sizeof value);
    return (double)value;
}
#endif

/* IEEE 754 half precision, as RFC 8949 appendix D computes it. */
static double from_half(uint64_t bits)
{
    unsigned exponent = (unsigned)(bits >> 10 & 0x1fu);
    double fraction = (double)(bits & 0x3ffu);
    double scale = 1.0 / 16777216.0; /* 2^-24 */
    double value;
    if (exponent == 31) {
        value = from_double((bits & 0x3ffu) != 0 ? UINT64_C(0x7ff8000000000000) : UINT64_C(0x7ff0000000000000));
    } else {
        if (exponent > 0) {
            fraction += 1024.0;
        }
        for (; exponent > 1; exponent--) {
            scale *= 2.0;
        }
        value = fraction * scale;
    }
    return (bits & 0x8000u) != 0 ? -value : value;
}

static double from_float(unsigned info, uint64_t bits)
{
    uint32_t single_bits = (uint32_t)bits;
    float single;
    if (info == 25) {
        return from_half(bits);
    }
    if (info == 26) {
        memcpy(&single, &single_bits, sizeof single);
        return (double)single;
    }
    return from_double(bits);
}

static enum tg_status fill_simple(const struct head *h, struct tg_value *v)
{
    if (h->info >= 25 && h->info <= 27) {
        v->kind = TG_FLOAT;
        v->fraction = from_float(h->info, h->value);
        return TG_OK;
    }
    v->kind = h->value == 20 || h->value == 21 ? TG_BOOL : TG_NULL;
    v->number = h->value == 21 ? 1 : 0;
    return h->value >= 20 && h->value <= 23 ? TG_OK : TG_BAD;
}

/* What stands at the cursor, whole; the cursor moves behind it. */
static enum tg_status read_value(struct cursor *c, struct tg_value *v)
{
    static const enum tg_kind KINDS[6] = {TG_UINT, TG_NEGATIVE, TG_BYTES, TG_TEXT, TG_ARRAY, TG_MAP};
    struct cursor inside = *c;
    struct head h;
    memset(v, 0, sizeof *v);
    v->raw = c->at;
    if (!skip_item(c)) {
        return TG_BAD;
    }
    v->raw_len = (size_t)(c->at - v->raw);
    do {
        if (!read_head(&inside, &h)) {
            return TG_BAD;
        }
    } while (h.major == 6);
    if (h.major == 7) {
        return fill_simple(&h, v);
    }
    v->kind = KINDS[h.major];
    v->number = h.value;
    if (h.major == 0) {
        v->fraction = (double)h.value;
    } else if (h.major == 1) {
        v->fraction = -1.0 - (double)h.value;
    } else if (h.major < 4 && h.value != TG_INDEFINITE) {
        v->text = (const char *)inside.at;
        v->text_len = (size_t)h.value;
    }
    return TG_OK;
}

bool tg_whole(const uint8_t *raw, size_t len)
{
    struct cursor c = {raw, raw + len};
    return len > 0 && skip_item(&c) && c.at == c.end;
}

enum tg_status tg_open(const uint8_t *raw, size_t len, struct tg_items *items)
{
    struct cursor c = {raw, raw + len};
    struct head h;
    do {
        if (!read_head(&c, &h)) {
            return TG_BAD;
        }
    } while (h.major == 6);
    if (h.major != 4 && h.major != 5 && !(h.value == TG_INDEFINITE && h.major == 3)) {
        return TG_BAD;
    }
    items->at = c.at;
    items->end = c.end;
    items->pairs = h.major == 5;
    items->left = h.value == TG_INDEFINITE || h.major != 5 ? h.value : 2 * h.value;
    return h.value == TG_INDEFINITE || h.value <= len ? TG_OK : TG_BAD;
}

enum tg_status tg_item(struct tg_items *items, struct tg_value *value)
{
    struct cursor c = {items->at, items->end};
    enum tg_status status;
    if (items->left == 0 || (items->left == TG_INDEFINITE && c.at < c.end && *c.at == 0xff)) {
        return TG_NOT_FOUND;
    }
    status = read_value(&c, value);
    if (status == TG_OK) {
        items->at = c.at;
        items->left -= items->left == TG_INDEFINITE ? 0 : 1;
    }
    return status;
}

enum tg_status tg_find(const uint8_t *map, size_t len, const char *key, struct tg_value *value)
{
    struct tg_items items;
    struct tg_value name;
    enum tg_status status = tg_open(map, len, &items);
    if (status != TG_OK || !items.pairs) {
        return TG_BAD;
    }
    for (;;) {
        status = tg_item(&items, &name);
        if (status != TG_OK) {
            return status;
        }
        status = tg_item(&items, value);
        if (status != TG_OK) {
            return TG_BAD;
        }
        if (tg_is(&name, key)) {
            return TG_OK;
        }
    }
}

bool tg_is(const struct tg_value *value, const char *text)
{
    return value->kind == TG_TEXT && value->text != NULL && value->text_len == strlen(text)
        && memcmp(value->text, text, value->text_len) == 0;
}
