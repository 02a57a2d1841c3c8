/* The pieces of a streamed answer, and texts that come in chunks. */
#include "ask.h"

#include <string.h>

bool tg_text(const struct tg_value *value, char *out, size_t cap, size_t *len)
{
    struct tg_items items;
    struct tg_value chunk;
    enum tg_status status;
    *len = 0;
    if (value->kind != TG_TEXT) {
        return false;
    }
    if (value->text != NULL) {
        *len = value->text_len <= cap ? value->text_len : 0;
        memcpy(out, value->text, *len);
        return value->text_len <= cap;
    }
    if (tg_open(value->raw, value->raw_len, &items) != TG_OK) {
        return false;
    }
    while ((status = tg_item(&items, &chunk)) == TG_OK) {
        if (chunk.kind != TG_TEXT || chunk.text == NULL || chunk.text_len > cap - *len) {
            return false;
        }
        memcpy(out + *len, chunk.text, chunk.text_len);
        *len += chunk.text_len;
    }
    return status == TG_NOT_FOUND;
}

void tg_stream_init(struct tg_stream *stream, char *buf, size_t cap)
{
    memset(stream, 0, sizeof *stream);
    stream->buf = buf;
    stream->cap = cap;
}

static bool number(const uint8_t *frame, size_t len, const char *key, uint32_t *value)
{
    struct tg_value v;
    if (tg_find(frame, len, key, &v) != TG_OK || v.kind != TG_UINT || v.number > UINT32_MAX) {
        return false;
    }
    *value = (uint32_t)v.number;
    return true;
}

bool tg_stream_add(struct tg_stream *stream, const uint8_t *frame, size_t len)
{
    struct tg_value text;
    uint32_t attempt, seq;
    size_t added;
    bool anew;
    if (!number(frame, len, "attempt", &attempt) || !number(frame, len, "seq", &seq)
        || tg_find(frame, len, "text", &text) != TG_OK || attempt < stream->attempt) {
        return false;
    }
    anew = attempt > stream->attempt;
    if (anew) {
        stream->attempt = attempt;
        stream->len = 0;
        stream->next = 0;
        stream->gap = false;
    }
    if (stream->gap || seq < stream->next) {
        return anew;
    }
    if (seq > stream->next || !tg_text(&text, stream->buf + stream->len, stream->cap - stream->len, &added)) {
        stream->gap = true;
        return anew;
    }
    stream->len += added;
    stream->next = seq + 1;
    return true;
}
