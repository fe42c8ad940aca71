// SPDX-License-Identifier: GPL-2.0
/* What ckptbench says of figures: overhead and noise, and what is worse than in an older report. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench.h"
#include "bench_node.h"
#include "bench_report.h"
#include "cleanup.h"

static struct samples samples_of(double base, double spread, size_t count)
{
	struct samples samples = { 0 };

	for (size_t i = 0; i < count; i++)
		samples_add(&samples, base + spread * (double)(i * 7 % count) / (double)count);
	return samples;
}

static struct overhead overhead_of(double base, double other, double spread)
{
	struct samples one = samples_of(base, spread, 15), two = samples_of(other, spread, 15);
	struct overhead overhead = samples_overhead(&one, &two);

	samples_free(&one);
	samples_free(&two);
	return overhead;
}

static void test_overhead(void **state)
{
	struct overhead overhead = overhead_of(100, 110, 1);

	assert_true(overhead.percent > 9.5 && overhead.percent < 10.5);
	assert_true(overhead.low > 8.5 && overhead.low <= overhead.percent);
	assert_true(overhead.high < 11.5 && overhead.high >= overhead.percent);
	assert_false(overhead_is_noise(&overhead));
	overhead = overhead_of(110, 100, 1);
	assert_true(overhead.high < 0);
	assert_false(overhead_is_noise(&overhead));
}

static void test_noise(void **state)
{
	struct overhead overhead = overhead_of(100, 101, 30);

	assert_true(overhead.low < 0 && overhead.high > 0);
	assert_true(overhead_is_noise(&overhead));
	overhead = overhead_of(100, 100, 0);
	assert_true(overhead.percent == 0 && overhead_is_noise(&overhead));
}

static char *compare(const char *old, const char *report, unsigned int worse)
{
	json_t *before = json_loads(old, 0, NULL), *now = json_loads(report, 0, NULL);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(before);
	assert_non_null(now);
	assert_int_equal(bench_compare(before, now, out), worse);
	fclose(out);
	json_decref(before);
	json_decref(now);
	return text;
}

#define REPORT(cells) "{\"environment\": {\"kernel\": \"6.1\"}, \"cells\": [" cells "]}"

/* A rate that falls and a time that grows are worse, and so is a smaller ratio of the peer's time to ours. */
static void test_directions(void **state)
{
	cleanup_free char *rate = compare(REPORT("{\"case\": \"write\", \"unit\": \"MiB/s\", \"ours\": 100, \"ratio\": 1}"),
					  REPORT("{\"case\": \"write\", \"unit\": \"MiB/s\", \"ours\": 80, \"ratio\": 0.8}"), 2);
	cleanup_free char *cpu = compare(REPORT("{\"case\": \"cpu\", \"unit\": \"s/GiB\", \"ours\": 100, \"ratio\": 1}"),
					 REPORT("{\"case\": \"cpu\", \"unit\": \"s/GiB\", \"ours\": 80, \"ratio\": 0.8}"), 0);
	cleanup_free char *time = compare(REPORT("{\"thp\": true, \"median_us\": 10, \"ratio\": 5}"),
					  REPORT("{\"thp\": true, \"median_us\": 12, \"ratio\": 4}"), 2);

	assert_non_null(strstr(rate, "worse  write MiB/s"));
	assert_non_null(strstr(rate, "-20.0 %"));
	assert_non_null(strstr(cpu, "better cpu s/GiB"));
	assert_non_null(strstr(time, "2 figures compared: 2 worse, 0 better"));
}

static void test_matching(void **state)
{
	cleanup_free char *moved = compare(REPORT("{\"mib\": 64, \"median_us\": 1}, {\"mib\": 512, \"median_us\": 100}"),
					   REPORT("{\"mib\": 512, \"median_us\": 104}, {\"mib\": 4096, \"median_us\": 5}"), 0);
	cleanup_free char *nested = compare(REPORT("{\"case\": \"dump\", \"ours\": {\"frozen_ms\": 10, \"mib_written\": 0}}"),
					    REPORT("{\"case\": \"dump\", \"ours\": {\"frozen_ms\": 30, \"mib_written\": 2}}"),
					    2);
	cleanup_free char *kernel = compare("{\"environment\": {\"kernel\": \"5.10\"}, \"cells\": []}", REPORT(""), 0);

	assert_non_null(strstr(moved, "1 figures compared: 0 worse, 0 better"));
	assert_non_null(strstr(moved, "1 cells are not in the older report"));
	assert_non_null(strstr(nested, "frozen_ms"));
	assert_non_null(strstr(kernel, "kernel: \"5.10\" -> \"6.1\""));
}

static void test_quoting(void **state)
{
	cleanup_free char *quoted = node_quote((char *[]){ "run", "it's", "", "a b", NULL });

	assert_string_equal(quoted, "'run' 'it'\\''s' '' 'a b'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_overhead), cmocka_unit_test(test_noise), cmocka_unit_test(test_directions),
		cmocka_unit_test(test_matching), cmocka_unit_test(test_quoting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
