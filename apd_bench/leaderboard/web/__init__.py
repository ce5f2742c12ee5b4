"""The leaderboard as one self-contained web page: works from a file, without a network, without scripts if need be."""
