"""Words that many phones type and the model lacks, found in sums of votes that nobody sees singly; and their rows.

A trie of prefixes is grown level by level, as in Zhu et al. 2020, arXiv 1902.08534 (TrieHH). There a phone casts one
vote a round, and sampling and a threshold make it private, which takes many users a word. Here a phone votes for all
its words at once, up to a bound, in a vector with a place for every question that is asked: such vectors add up under
secure aggregation, Skellam noise of every phone makes the sum private, and a threshold above it makes it precise.
"""

from kbdfl.discovery.ballot import Voter
from kbdfl.discovery.grow import Grown, grow
from kbdfl.discovery.plan import Question, SearchPlan
from kbdfl.discovery.search import Search

__all__ = ["Grown", "Question", "Search", "SearchPlan", "Voter", "grow"]
