/* SPDX-License-Identifier: GPL-2.0 */
/* Plots as SVG, for a page that needs nothing else: lines over numbers, and bars in groups. */
#ifndef CKPT_PLOT_H
#define CKPT_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define PLOT_SERIES 8

struct plot_point {
	double x, y;
	double low, high;       /* of y; both 0: not told */
};

struct plot_series {
	const char *name;
	struct plot_point *points;      /* lines: ascending x; bars: x is the number of the group */
	size_t count;
};

struct plot {
	const char *title;
	const char *x_label, *y_label;
	bool log_x, log_y;              /* then values that are not above 0 are left out */
	const char *const *groups;      /* of bars: their names; NULL: lines */
	size_t group_count;
	struct plot_series series[PLOT_SERIES];
	size_t series_count;
};

/* The next series; NULL: there is no room. */
struct plot_series *plot_add(struct plot *plot, const char *name);
void plot_point(struct plot_series *series, struct plot_point point);
/* Nothing if there is not one point. */
void plot_draw(const struct plot *plot, FILE *out);
void plot_free(struct plot *plot);
/* For text and attributes of HTML and SVG. */
void plot_escape(const char *text, FILE *out);

#endif
