/*
 * TLS 1.2 by mbedTLS over the TCP connection. The chain must lead to the CA that was built in and the certificate must
 * have the server's name; without both no byte of MQTT leaves.
 */
#include "board.h"
#include "ca.h" /* made by the Makefile: DEVICE_CA, the CA's certificate in PEM */
#include "link.h"
#include "wire.h"

#include "mbedtls/ctr_drbg.h"
#include "mbedtls/entropy.h"
#include "mbedtls/memory_buffer_alloc.h"
#include "mbedtls/ssl.h"

/* All that mbedTLS allocates, for the handshake mostly. */
#define HEAP_BYTES (48 * 1024)

static struct tcp_link link;
static unsigned char heap[HEAP_BYTES];
static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context random_numbers;
static mbedtls_x509_crt ca;
static mbedtls_ssl_config config;
static mbedtls_ssl_context ssl;
static enum wire_state state;
static size_t begun; /* bytes of a record that did not go out whole */
static const char *why = "the connection broke";

int mbedtls_hardware_poll(void *with, unsigned char *out, size_t len, size_t *got);

int mbedtls_hardware_poll(void *with, unsigned char *out, size_t len, size_t *got)
{
    (void)with;
    *got = board_random(out, len) ? len : 0;
    return *got == len ? 0 : MBEDTLS_ERR_ENTROPY_SOURCE_FAILED;
}

static int give(void *with, const unsigned char *bytes, size_t len)
{
    size_t went = tcp_link_send(with, bytes, len);
    return went > 0 ? (int)went : MBEDTLS_ERR_SSL_WANT_WRITE;
}

static int take(void *with, unsigned char *bytes, size_t cap)
{
    size_t len = tcp_link_receive(with, bytes, cap);
    if (len > 0) {
        return (int)len;
    }
    return tcp_link_over(with) ? MBEDTLS_ERR_SSL_CONN_EOF : MBEDTLS_ERR_SSL_WANT_READ;
}

bool wire_start(const char *server)
{
    mbedtls_memory_buffer_alloc_init(heap, sizeof heap);
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random_numbers);
    mbedtls_x509_crt_init(&ca);
    mbedtls_ssl_config_init(&config);
    mbedtls_ssl_init(&ssl);
    if (mbedtls_ctr_drbg_seed(&random_numbers, mbedtls_entropy_func, &entropy, NULL, 0) != 0
        || mbedtls_x509_crt_parse(&ca, (const unsigned char *)DEVICE_CA, sizeof DEVICE_CA) != 0
        || mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                       MBEDTLS_SSL_PRESET_DEFAULT) != 0) {
        return false;
    }
    mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(&config, &ca, NULL);
    mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random_numbers);
    return mbedtls_ssl_setup(&ssl, &config) == 0 && mbedtls_ssl_set_hostname(&ssl, server) == 0;
}

bool wire_open(const char *address, uint16_t port)
{
    state = WIRE_OPENING;
    begun = 0;
    why = "the connection broke";
    if (mbedtls_ssl_session_reset(&ssl) != 0) {
        return false;
    }
    mbedtls_ssl_set_bio(&ssl, &link, give, take, NULL);
    return tcp_link_open(&link, address, port);
}

static const char *certificate_fault(void)
{
    uint32_t flags = mbedtls_ssl_get_verify_result(&ssl);
    if ((flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) != 0) {
        return "the gateway's certificate does not lead to our CA";
    }
    return (flags & MBEDTLS_X509_BADCERT_CN_MISMATCH) != 0 ? "the gateway's certificate has another name"
                                                            : "the gateway's certificate was refused";
}

enum wire_state wire_step(void)
{
    int result;
    if (state == WIRE_OPENING && link.state == LINK_OPEN) {
        result = mbedtls_ssl_handshake(&ssl);
        if (result == 0) {
            state = WIRE_OPEN;
        } else if (result == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
            why = certificate_fault();
            state = WIRE_DOWN;
        } else if (result != MBEDTLS_ERR_SSL_WANT_READ && result != MBEDTLS_ERR_SSL_WANT_WRITE) {
            why = "the TLS handshake failed";
            state = WIRE_DOWN;
        }
    }
    if (state == WIRE_OPENING && tcp_link_over(&link)) {
        state = WIRE_DOWN;
    }
    return state;
}

/* mbedTLS asks for the same bytes again after WANT_WRITE, and takes as many as it is told: not those that came since. */
size_t wire_send(const uint8_t *bytes, size_t len)
{
    int result;
    len = begun > 0 ? begun : len;
    result = state == WIRE_OPEN ? mbedtls_ssl_write(&ssl, bytes, len) : 0;
    begun = result == MBEDTLS_ERR_SSL_WANT_READ || result == MBEDTLS_ERR_SSL_WANT_WRITE ? len : 0;
    if (result < 0 && result != MBEDTLS_ERR_SSL_WANT_READ && result != MBEDTLS_ERR_SSL_WANT_WRITE) {
        state = WIRE_DOWN;
    }
    return result > 0 ? (size_t)result : 0;
}

size_t wire_receive(uint8_t *bytes, size_t cap)
{
    int result = state == WIRE_OPEN ? mbedtls_ssl_read(&ssl, bytes, cap) : MBEDTLS_ERR_SSL_WANT_READ;
    if (result == 0 || (result < 0 && result != MBEDTLS_ERR_SSL_WANT_READ && result != MBEDTLS_ERR_SSL_WANT_WRITE)) {
        state = WIRE_DOWN;
    }
    return result > 0 ? (size_t)result : 0;
}

void wire_close(void)
{
    if (state == WIRE_OPEN) {
        mbedtls_ssl_close_notify(&ssl);
    }
    tcp_link_close(&link);
}

const char *wire_why(void)
{
    return why;
}

uint16_t wire_port(void)
{
    return 8883;
}
