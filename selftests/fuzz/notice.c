// SPDX-License-Identifier: GPL-2.0
/* What the metadata service answers: bodies, header lines, tokens. */
#include "../../daemon/notice_imds.c"

#include "fuzz.h"
#include "notice.h"

static void take_body(const uint8_t *data, size_t length)
{
	struct imds_answer answer = { .length = 0 };
	struct request request = { .answer = &answer };
	size_t done, part;

	for (done = 0; done < length; done += part) {
		part = length - done < 1000 ? length - done : 1000;
		if (request_take_body((char *)data + done, 1, part, &request) != part)
			break;
	}
	if (answer.length > IMDS_ANSWER_MAX || answer.body[answer.length])
		abort();
	token_valid(&answer);
}

static void take_header(const uint8_t *data, size_t length)
{
	struct imds_answer answer = { .length = 0 };
	struct request request = { .answer = &answer };
	char *line = malloc(length ? length : 1);

	memcpy(line, data, length);
	request_take_header(line, 1, length, &request);
	free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	char *body = malloc(length + 1), action[16] = "";
	int64_t epoch_s, deadline_ms;

	memcpy(body, data, length);
	body[length] = '\0';
	take_body(data, length);
	take_header(data, length);
	if (!notice_parse_action(body, action, &epoch_s) &&
	    !notice_deadline(action, epoch_s, 1700000000, 1000000, 120000, &deadline_ms) &&
	    (deadline_ms < 1000000 || deadline_ms > 1120000))
		abort();
	notice_parse_rebalance(body, &epoch_s);
	free(body);
	return 0;
}

void fuzz_seeds(void (*seed)(const char *name, const void *data, size_t length))
{
	static const char action[] = "{\"action\": \"terminate\", \"time\": \"2023-11-14T22:15:00Z\"}";
	static const char rebalance[] = "{\"noticeTime\": \"2023-11-14T22:15:00Z\"}";
	static const char date[] = "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n";
	static const char ttl[] = "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n";

	seed("action", action, sizeof(action) - 1);
	seed("rebalance", rebalance, sizeof(rebalance) - 1);
	seed("date", date, sizeof(date) - 1);
	seed("ttl", ttl, sizeof(ttl) - 1);
	seed("token", "AQAEALx-token-_Zg==", 19);
}
