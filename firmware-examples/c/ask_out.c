/* What an ask sends: its topics, its packets, and the id of its prompt. */
#include "ask_parts.h"

#include <string.h>

size_t tg_out_topic(char *out, const struct tg_settings *set, const char *what)
{
    const char *parts[5];
    size_t i, n, len = 0;
    parts[0] = "tg/v1/";
    parts[1] = set->gateway;
    parts[2] = what;
    parts[3] = set->device;
    parts[4] = "";
    for (i = 0; i < 5; i++) {
        n = strlen(parts[i]);
        if (n >= TG_TOPIC_BYTES - len) {
            return 0;
        }
        memcpy(out + len, parts[i], n + 1);
        len += n;
    }
    return len;
}

void tg_make_id(char id[TG_ID_BYTES], uint32_t boot, uint32_t count)
{
    static const char DIGITS[] = "0123456789abcdef";
    char number[10];
    size_t n = 0, at = 0;
    int shift;
    for (shift = 28; shift >= 0; shift -= 4) {
        id[at++] = DIGITS[boot >> shift & 15u];
    }
    id[at++] = '-';
    do {
        number[n++] = DIGITS[count % 10];
        count /= 10;
    } while (count > 0);
    while (n > 0) {
        id[at++] = number[--n];
    }
    id[at] = '\0';
}

bool tg_out_push(struct tg_ask *a, size_t len)
{
    a->out_len += len;
    return len > 0;
}

uint8_t *tg_out_room(struct tg_ask *a, size_t *cap)
{
    *cap = a->out_cap - a->out_len;
    return a->out + a->out_len;
}

bool tg_out_connect(struct tg_ask *a)
{
    struct tg_connect with = {0};
    size_t cap;
    uint8_t *out = tg_out_room(a, &cap);
    with.client_id = a->set.device;
    with.user = a->set.user;
    with.password = a->set.password;
    with.will_topic = a->set.will_topic;
    with.will_text = "lost";
    with.keep_alive_s = a->set.keep_alive_s;
    with.clean_session = true;
    return tg_out_push(a, tg_connect(out, cap, &with));
}

bool tg_out_subscribe(struct tg_ask *a)
{
    char topic[TG_TOPIC_BYTES];
    size_t cap;
    uint8_t *out = tg_out_room(a, &cap);
    return tg_out_topic(topic, &a->set, "/answer/") > 0 && tg_out_push(a, tg_subscribe(out, cap, SUBSCRIBE_ID, topic));
}

static size_t prompt_bytes(const struct tg_ask *a, size_t topic_len, uint8_t *out, size_t cap)
{
    struct tg_prompt prompt = {0};
    size_t len = strlen(a->set.text);
    if (a->set.bare) {
        if (len > cap) {
            return 0;
        }
        memcpy(out, a->set.text, len);
        return len;
    }
    prompt.id = a->id;
    prompt.task = a->set.task;
    prompt.input = a->set.text;
    prompt.max_tokens = a->set.max_tokens;
    prompt.max_bytes = (uint32_t)(a->reader.cap - topic_len - 9);
    prompt.deadline_ms = a->set.deadline_ms;
    prompt.stream = a->set.stream;
    prompt.local = a->set.local;
    return tg_prompt(out, cap, &prompt);
}

/* The same bytes each time: another deadline would be another prompt. */
bool tg_out_prompt(struct tg_ask *a)
{
    char topic[TG_TOPIC_BYTES];
    struct tg_publish publish = {0};
    size_t cap, head = tg_out_topic(topic, &a->set, "/prompt/") + 9;
    uint8_t *out = tg_out_room(a, &cap);
    if (head == 9 || cap <= head) {
        return false;
    }
    publish.topic = topic;
    publish.payload = out + head;
    publish.payload_len = prompt_bytes(a, head - 9, out + head, cap - head);
    publish.packet_id = PROMPT_ID;
    return publish.payload_len > 0 && tg_out_push(a, tg_publish(out, cap, &publish));
}
