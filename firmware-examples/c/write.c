/* Writing: one sink for MQTT and CBOR (RFC 8949). It counts on past the end, so that one check at the end is enough. */
#include "tidegate.h"

#include <float.h>
#include <string.h>

struct tg_writer tg_writer(uint8_t *out, size_t cap)
{
    struct tg_writer w;
    w.out = out;
    w.cap = cap;
    w.len = 0;
    w.full = false;
    return w;
}

size_t tg_written(const struct tg_writer *w)
{
    return w->full ? 0 : w->len;
}

void tg_put_raw(struct tg_writer *w, const void *bytes, size_t len)
{
    if (w->full || len > w->cap - w->len) {
        w->full = true;
        return;
    }
    if (len > 0) {
        memmove(w->out + w->len, bytes, len);
    }
    w->len += len;
}

void tg_put_byte(struct tg_writer *w, unsigned byte)
{
    uint8_t b = (uint8_t)byte;
    tg_put_raw(w, &b, 1);
}

/* The low `bytes` bytes, the highest first. */
static void put_number(struct tg_writer *w, uint64_t value, unsigned bytes)
{
    while (bytes > 0) {
        bytes--;
        tg_put_byte(w, (unsigned)(value >> 8 * bytes & 0xffu));
    }
}

void tg_put_head(struct tg_writer *w, unsigned major, uint64_t value)
{
    unsigned type = major << 5;
    if (value < 24) {
        tg_put_byte(w, type | (unsigned)value);
    } else if (value <= 0xffu) {
        tg_put_byte(w, type | 24);
        put_number(w, value, 1);
    } else if (value <= 0xffffu) {
        tg_put_byte(w, type | 25);
        put_number(w, value, 2);
    } else if (value <= 0xffffffffu) {
        tg_put_byte(w, type | 26);
        put_number(w, value, 4);
    } else {
        tg_put_byte(w, type | 27);
        put_number(w, value, 8);
    }
}

void tg_put_open(struct tg_writer *w, enum tg_kind kind)
{
    tg_put_byte(w, kind == TG_MAP ? 0xbf : kind == TG_ARRAY ? 0x9f : 0x7f);
}

void tg_put_close(struct tg_writer *w)
{
    tg_put_byte(w, 0xff);
}

void tg_put_text(struct tg_writer *w, const char *text, size_t len)
{
    tg_put_head(w, 3, len);
    tg_put_raw(w, text, len);
}

void tg_put_bool(struct tg_writer *w, bool value)
{
    tg_put_byte(w, value ? 0xf5 : 0xf4);
}

void tg_put_null(struct tg_writer *w)
{
    tg_put_byte(w, 0xf6);
}

/* The half-precision form of a single that it holds exactly. */
static bool as_half(uint32_t single, uint16_t *half)
{
    uint32_t sign = single >> 16 & 0x8000u, exponent = single >> 23 & 0xffu, fraction = single & 0x7fffffu;
    uint32_t whole = fraction | 0x800000u, bits;
    if (exponent == 0xff && (fraction & 0x1fffu) == 0) {
        bits = 0x7c00u | fraction >> 13;
    } else if (exponent >= 113 && exponent <= 142 && (fraction & 0x1fffu) == 0) {
        bits = (exponent - 112) << 10 | fraction >> 13;
    } else if (exponent >= 103 && exponent < 113 && (whole & ((UINT32_C(1) << (126 - exponent)) - 1)) == 0) {
        bits = whole >> (126 - exponent);
    } else if ((single & 0x7fffffffu) == 0) {
        bits = 0;
    } else {
        return false;
    }
    *half = (uint16_t)(sign | bits);
    return true;
}

void tg_put_float(struct tg_writer *w, double value)
{
    float single = (float)value;
    uint32_t bits;
    uint16_t half;
    memcpy(&bits, &single, sizeof bits);
    if (value != value) {
        tg_put_byte(w, 0xf9);
        put_number(w, 0x7e00, 2);
    } else if (value < (double)single || value > (double)single) {
#if DBL_MANT_DIG == 53
        uint64_t wide;
        memcpy(&wide, &value, sizeof wide);
        tg_put_byte(w, 0xfb);
        put_number(w, wide, 8);
#endif
    } else if (as_half(bits, &half)) {
        tg_put_byte(w, 0xf9);
        put_number(w, half, 2);
    } else {
        tg_put_byte(w, 0xfa);
        put_number(w, bits, 4);
    }
}

/* ---- a prompt ---- */

static void put_text_field(struct tg_writer *s, const char *key, const char *text)
{
    if (text != NULL) {
        tg_put_text(s, key, strlen(key));
        tg_put_text(s, text, strlen(text));
    }
}

static void put_number_field(struct tg_writer *s, const char *key, uint32_t value)
{
    if (value != 0) {
        tg_put_text(s, key, strlen(key));
        tg_put_head(s, 0, value);
    }
}

static void put_flag_field(struct tg_writer *s, const char *key, bool flag)
{
    if (flag) {
        tg_put_text(s, key, strlen(key));
        tg_put_bool(s, true);
    }
}

size_t tg_prompt(uint8_t *out, size_t cap, const struct tg_prompt *prompt)
{
    struct tg_writer s = tg_writer(out, cap);
    uint32_t fields = 1;
    fields += prompt->id != NULL ? 1u : 0u;
    fields += prompt->task != NULL ? 1u : 0u;
    fields += prompt->max_tokens != 0 ? 1u : 0u;
    fields += prompt->max_bytes != 0 ? 1u : 0u;
    fields += prompt->deadline_ms != 0 ? 1u : 0u;
    fields += prompt->stream ? 1u : 0u;
    fields += prompt->local ? 1u : 0u;
    tg_put_head(&s, 5, fields);
    put_text_field(&s, "id", prompt->id);
    put_text_field(&s, "task", prompt->task);
    put_text_field(&s, "input", prompt->input);
    put_number_field(&s, "max_tokens", prompt->max_tokens);
    put_number_field(&s, "max_bytes", prompt->max_bytes);
    put_number_field(&s, "deadline_ms", prompt->deadline_ms);
    put_flag_field(&s, "stream", prompt->stream);
    put_flag_field(&s, "local", prompt->local);
    return tg_written(&s);
}

size_t tg_control(uint8_t *out, size_t cap, enum tg_op op, const char *id)
{
    struct tg_writer s = tg_writer(out, cap);
    tg_put_head(&s, 5, 2);
    put_text_field(&s, "op", op == TG_FETCH ? "fetch" : "cancel");
    put_text_field(&s, "id", id);
    return tg_written(&s);
}
