/* The report page's markup, style and program as real files, embedded: the same bytes as an array literal in Swift take
 * seconds to compile. */
#include "CApusReport.h"

static const unsigned char page_html[] = {
#embed "page/page.html"
};
static const unsigned char style_css[] = {
#embed "page/style.css"
};
static const unsigned char format_js[] = {
#embed "page/format.js"
};
static const unsigned char axis_js[] = {
#embed "page/axis.js"
};
static const unsigned char curves_js[] = {
#embed "page/curves.js"
};
static const unsigned char chart_js[] = {
#embed "page/chart.js"
};
static const unsigned char heatmap_js[] = {
#embed "page/heatmap.js"
};
static const unsigned char main_js[] = {
#embed "page/main.js"
};

static const apus_page_part parts[] = {
    {"page.html", page_html, sizeof page_html},    {"style.css", style_css, sizeof style_css},
    {"format.js", format_js, sizeof format_js},    {"axis.js", axis_js, sizeof axis_js},
    {"curves.js", curves_js, sizeof curves_js},    {"chart.js", chart_js, sizeof chart_js},
    {"heatmap.js", heatmap_js, sizeof heatmap_js}, {"main.js", main_js, sizeof main_js},
};

const apus_page_part *apus_page_parts(size_t *count) {
    *count = sizeof parts / sizeof parts[0];
    return parts;
}
