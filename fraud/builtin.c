#include "fraud/builtin.h"

#include <stddef.h>
#include <string.h>

static const char rules_json[] = "{\n"
                                 "  \"double_click_ms\": 10000,\n"
                                 "  \"repeat_click_ms\": 3600000,\n"
                                 "  \"address_minute_max\": 100,\n"
                                 "  \"address_second_max\": 10,\n"
                                 "  \"shadow\": []\n"
                                 "}\n";

/* Words that programs use of themselves, then names of programs that use none of them. What
 * starts with neither Mozilla/ nor Opera/ is no browser anyway and needs no line here. */
static const char bots_txt[] =
    "# Words.\n"
    "bot\ncrawl\nspider\nslurp\nscrap\nfetcher\nfetch/"
    "\nharvest\nmonitor\nvalidator\n"
    "checker\narchiver\nindexer\npreview\nscanner\nscanning\nfeedreader\nfeedfetche"
    "r\n"
    "headless\nuptime\nsearch engine\nlink check\nsite audit\nsubscribers\n"
    "# An address of the program's makers.\n"
    "+http\n+ http\n@\n"
    "# Browsers driven by programs.\n"
    "phantomjs\nslimerjs\ncasperjs\nselenium\nwebdriver\npuppeteer\nplaywright\ncyp"
    "ress/\n"
    "htmlunit\nzombie.js\nnightmarejs\n"
    "# Libraries behind a browser's name.\n"
    "python\nlibwww\ncurl/"
    "\nwget\nokhttp\ngo-http-client\njakarta\n(java)\nnode-fetch\n"
    "axios\nscrapy\nguzzle\nhttpclient\n"
    "# Search and advertising.\n"
    "mediapartners-google\nadsbot-google\ngoogle-adwords\ngoogle-ads-\ngoogle-"
    "inspectiontool\n"
    "google "
    "favicon\ngoogle-site-verification\ngoogle-physicalweb\ngoogle-read-aloud\n"
    "google-extended\nbingpreview\nyahoo! slurp\nyandeximages\nbaiduspider\n"
    "teoma\nia_archiver\nheritrix\nexabot\nseznam\nsogou\nqwantify\n"
    "# Link previews.\n"
    "facebookexternalhit\nfacebookcatalog\nmeta-external\ntwitterbot\nlinkedinbot\n"
    "slack-img\nskypeuri\nembedly\noutbrain\n"
    "# Measuring and watching.\n"
    "chrome-lighthouse\nlighthouse\npagespeed\nptst/"
    "\nwebpagetest\ngtmetrix\npingdom\n"
    "statuscake\ndareboost\nappinsights\ndatadog\nnewrelic\nsite24x7\ncatchpoint\n"
    "dynatracesynthetic\nsiteimprove\n"
    "# Security and copies.\n"
    "nmap\nzgrab\nmasscan\nnikto\nsqlmap\nnessus\nnuclei\ncensys\nexpanse\nips-"
    "agent\n"
    "httrack\nwebcopier\nteleport\nwebzip\noffline explorer\nsitesucker\n"
    "# Marketing and feeds.\n"
    "ahrefs\nsemrush\nmajestic\nscreaming frog\nlipperhey\nbrandverity\ndatanyze\n"
    "dataprovider\nbuiltwith\nwappalyzer\ngenieo\ntwingly\nrivva\ntrendsmap\n"
    "inoreader\ntheoldreader\nfeedly\nnewsblur\nnetvibes\nbloglines\n"
    "# Language models.\n"
    "anthropic\nclaude-\nchatgpt-user\noai-search\nperplexity-"
    "user\nbytespider\ndiffbot\ncohere-ai\n"
    "# Phones of these makers are no programs.\n"
    "!cubot\n";

const char *
builtin_text(const char *name)
{
    static const struct {
        const char *name, *text;
    } files[] = {
        {"rules.json", rules_json},
        {"bots.txt", bots_txt},
        {"addresses.txt", "# None.\n"},
        {"honeypots.txt", "# None: but ad ids that start with honeypot count.\n"}};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (strcmp(files[i].name, name) == 0)
            return files[i].text;
    return NULL;
}
