// SPDX-License-Identifier: GPL-2.0
#include "plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 *    title
 *   y_label
 *     |                  legend
 *     |      plot area   legend
 *     +----------------
 *          x_label
 */
#define WIDTH 820
#define HEIGHT 360
#define LEFT 80
#define RIGHT 220
#define TOP 46
#define BOTTOM 56
#define PLOT_WIDTH (WIDTH - LEFT - RIGHT)
#define PLOT_HEIGHT (HEIGHT - TOP - BOTTOM)
#define MOST_TICKS 12
/* Bars that are less wide have no number over them. */
#define NUMBER_WIDTH 22

/* Told apart also by who does not see all colours (Okabe and Ito, 2008). */
static const char *const colours[PLOT_SERIES] = {
	"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442",
};

struct axis {
	double low, high;
	bool log;
	double from, length;    /* in the picture */
};

void plot_escape(const char *text, FILE *out)
{
	for (; *text; text++) {
		switch (*text) {
		case '&': fputs("&amp;", out); break;
		case '<': fputs("&lt;", out); break;
		case '>': fputs("&gt;", out); break;
		case '"': fputs("&quot;", out); break;
		default: putc(*text, out);
		}
	}
}

struct plot_series *plot_add(struct plot *plot, const char *name)
{
	struct plot_series *series = plot->series_count < PLOT_SERIES ? &plot->series[plot->series_count++] : NULL;

	if (series)
		*series = (struct plot_series){ .name = name };
	return series;
}

void plot_point(struct plot_series *series, struct plot_point point)
{
	struct plot_point *grown;

	if (!series || !isfinite(point.x) || !isfinite(point.y))
		return;
	grown = reallocarray(series->points, series->count + 1, sizeof(*grown));
	if (!grown)
		return;
	series->points = grown;
	grown[series->count++] = point;
}

void plot_free(struct plot *plot)
{
	for (size_t i = 0; i < plot->series_count; i++)
		free(plot->series[i].points);
	plot->series_count = 0;
}

/* ---- axes ---- */

static double place(const struct axis *axis, double value)
{
	double share = axis->log ? log10(value / axis->low) / log10(axis->high / axis->low)
				 : (value - axis->low) / (axis->high - axis->low);

	return axis->from + share * axis->length;
}

static void widen(struct axis *axis, double value, size_t *count)
{
	if (axis->log && value <= 0)
		return;
	if (!(*count)++)
		axis->low = axis->high = value;
	axis->low = fmin(axis->low, value);
	axis->high = fmax(axis->high, value);
}

/* 1, 2 or 5 times a power of ten, at least. */
static double round_step(double least)
{
	double power = pow(10, floor(log10(least)));
	double digit = least / power;

	return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

static void round_axis(struct axis *axis, bool from_zero)
{
	double step;

	if (axis->log) {
		axis->low = pow(10, floor(log10(axis->low)));
		axis->high = pow(10, ceil(log10(axis->high)));
		if (axis->high <= axis->low)
			axis->high = axis->low * 10;
		return;
	}
	if (from_zero) {
		axis->low = fmin(axis->low, 0);
		axis->high = fmax(axis->high, 0);
	}
	if (axis->high <= axis->low)
		axis->high = axis->low + 1;
	step = round_step((axis->high - axis->low) / 6);
	axis->low = floor(axis->low / step) * step;
	axis->high = ceil(axis->high / step) * step;
}

static size_t ticks(const struct axis *axis, double *list)
{
	double step = axis->log ? 10 : round_step((axis->high - axis->low) / 6);
	size_t count = 0;

	for (double at = axis->low; at <= axis->high + (axis->high - axis->low) * 1e-9 && count < MOST_TICKS;
	     at = axis->log ? at * step : at + step)
		list[count++] = fabs(at) < step * 1e-9 && !axis->log ? 0 : at;
	return count;
}

/* False: there is nothing to draw. */
static bool axes_of(const struct plot *plot, struct axis *x, struct axis *y)
{
	size_t x_count = 0, y_count = 0;

	*x = (struct axis){ .log = plot->log_x, .from = LEFT, .length = PLOT_WIDTH };
	*y = (struct axis){ .log = plot->log_y, .from = HEIGHT - BOTTOM, .length = -PLOT_HEIGHT };
	for (size_t i = 0; i < plot->series_count; i++)
		for (size_t j = 0; j < plot->series[i].count; j++) {
			const struct plot_point *point = &plot->series[i].points[j];

			widen(x, point->x, &x_count);
			widen(y, point->y, &y_count);
			if (point->low || point->high) {
				widen(y, point->low, &y_count);
				widen(y, point->high, &y_count);
			}
		}
	if (!x_count || !y_count)
		return false;
	round_axis(x, false);
	round_axis(y, true);
	return true;
}

/* ---- drawing ---- */

static void draw_text(FILE *out, double x, double y, const char *attributes, const char *text)
{
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
	plot_escape(text, out);
	fputs("</text>\n", out);
}

static void draw_number(FILE *out, double x, double y, const char *attributes, double number)
{
	char text[32];

	snprintf(text, sizeof(text), number >= 1000 ? "%.0f" : "%.4g", number);
	draw_text(out, x, y, attributes, text);
}

static void draw_y_axis(const struct axis *y, FILE *out)
{
	double list[MOST_TICKS];
	size_t count = ticks(y, list);

	for (size_t i = 0; i < count; i++) {
		double at = place(y, list[i]);

		fprintf(out, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", LEFT, at, LEFT + PLOT_WIDTH,
			at);
		draw_number(out, LEFT - 8, at + 4, "text-anchor=\"end\"", list[i]);
	}
}

static double group_width(const struct plot *plot)
{
	return (double)PLOT_WIDTH / (double)plot->group_count;
}

/* What comes after a comma is in a second line. */
static void draw_group_name(FILE *out, double middle, const char *name)
{
	static const char attributes[] = "text-anchor=\"middle\" font-size=\"10\"";
	const char *comma = strstr(name, ", ");
	char first[64];

	snprintf(first, sizeof(first), "%.*s", comma ? (int)(comma - name) : 63, name);
	draw_text(out, middle, TOP + PLOT_HEIGHT + 14, attributes, first);
	if (comma)
		draw_text(out, middle, TOP + PLOT_HEIGHT + 26, attributes, comma + 2);
}

static void draw_x_axis(const struct plot *plot, const struct axis *x, FILE *out)
{
	double list[MOST_TICKS];
	size_t count = plot->groups ? 0 : ticks(x, list);

	for (size_t i = 0; i < count; i++) {
		double at = place(x, list[i]);

		fprintf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", at, TOP, at,
			TOP + PLOT_HEIGHT);
		draw_number(out, at, TOP + PLOT_HEIGHT + 18, "text-anchor=\"middle\"", list[i]);
	}
	for (size_t i = 0; plot->groups && i < plot->group_count; i++)
		draw_group_name(out, LEFT + group_width(plot) * ((double)i + 0.5), plot->groups[i]);
	fprintf(out, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"#333\"/>\n", LEFT, TOP + PLOT_HEIGHT,
		LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT);
}

static bool drawable(const struct plot *plot, const struct plot_point *point)
{
	return (!plot->log_x || point->x > 0) && (!plot->log_y || point->y > 0);
}

static void draw_line(const struct plot *plot, const struct axis *x, const struct axis *y, size_t index, FILE *out)
{
	const struct plot_series *series = &plot->series[index];

	fprintf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colours[index]);
	for (size_t i = 0; i < series->count; i++)
		if (drawable(plot, &series->points[i]))
			fprintf(out, "%.1f,%.1f ", place(x, series->points[i].x), place(y, series->points[i].y));
	fputs("\"/>\n", out);
	for (size_t i = 0; i < series->count && series->count <= 40; i++)
		if (drawable(plot, &series->points[i]))
			fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", place(x, series->points[i].x),
				place(y, series->points[i].y), colours[index]);
}

static void draw_bar(const struct plot *plot, const struct axis *y, size_t index, const struct plot_point *point, FILE *out)
{
	double width = group_width(plot) * 0.8 / (double)plot->series_count;
	double left = LEFT + group_width(plot) * (point->x + 0.1) + width * (double)index;
	double zero = place(y, plot->log_y ? y->low : 0), top = place(y, point->y), middle = left + width * 0.45;

	fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", left, fmin(zero, top),
		width * 0.9, fabs(zero - top), colours[index]);
	if (point->low || point->high)
		fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#333\" stroke-width=\"2\"/>\n", middle,
			place(y, point->low), middle, place(y, point->high));
	if (width >= NUMBER_WIDTH)
		draw_number(out, middle, fmin(zero, place(y, fmax(point->y, point->high))) - 4, "text-anchor=\"middle\" font-size=\"10\"", point->y);
}

static void draw_legend(const struct plot *plot, FILE *out)
{
	for (size_t i = 0; i < plot->series_count; i++) {
		int top = TOP + 8 + 22 * (int)i;

		fprintf(out, "<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"10\" fill=\"%s\"/>\n", LEFT + PLOT_WIDTH + 16, top,
			colours[i]);
		draw_text(out, LEFT + PLOT_WIDTH + 36, top + 10, "", plot->series[i].name);
	}
}

void plot_draw(const struct plot *plot, FILE *out)
{
	struct axis x, y;

	if (!axes_of(plot, &x, &y))
		return;
	fprintf(out, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" font-size=\"12\" font-family=\"sans-serif\">\n",
		WIDTH, HEIGHT, WIDTH, HEIGHT);
	draw_text(out, 8, 18, "font-size=\"15\" font-weight=\"bold\"", plot->title);
	draw_text(out, 8, 36, "fill=\"#555\"", plot->y_label);
	draw_text(out, LEFT + PLOT_WIDTH / 2.0, HEIGHT - 14, "text-anchor=\"middle\" fill=\"#555\"", plot->x_label);
	draw_y_axis(&y, out);
	draw_x_axis(plot, &x, out);
	for (size_t i = 0; i < plot->series_count; i++) {
		if (!plot->groups)
			draw_line(plot, &x, &y, i, out);
		for (size_t j = 0; plot->groups && j < plot->series[i].count; j++)
			if (!plot->log_y || plot->series[i].points[j].y > 0)
				draw_bar(plot, &y, i, &plot->series[i].points[j], out);
	}
	draw_legend(plot, out);
	fputs("</svg>\n", out);
}
