"""The page that shows where the credits went (extra `report`): `figures.py` works out the figures, `charts.py` draws them,
`page.py` makes one HTML file of both, and `picture.py` an image for a chat. Nothing here asks the network for anything.
"""
