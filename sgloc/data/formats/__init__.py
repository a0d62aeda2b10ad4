"""Drawing file formats: readers of QuickDraw's four formats and of people's own files, and source lookup (METHOD 1)."""
