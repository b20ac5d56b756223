"""Files as RecBole and UniSRec publish them: a few rows of each."""

TRAIN = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
FILMS = {
    "ml-1m.inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t2571\t0\n1\t73\t1\n2\t260\t0\n",
    "ml-1m.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq\n"
        "73\tMisérables, Les\t1995\tDrama Musical\n"
        "260\tStar Wars: Episode IV - A New Hope\t1977\tAction Sci-Fi Film-Noir\n"
        "2571\tMatrix, The\t1999\tAnimation Children's\n"
        '9\t"Great  Performances" Cats\t\t\n'
    ),
}


GOODS = {
    "Scientific.train.inter": TRAIN + "0\t0 1\t2\n0\t0\t1\n1\t3 1\t3\n1\t3\t1\n",
    "Scientific.valid.inter": TRAIN + "0\t0 1 2\t3\n1\t3 1 3\t0\n",
    "Scientific.test.inter": TRAIN + "0\t0 1 2 3\t4\n1\t3 1 3 0\t0\n",
    "Scientific.text": (
        "item_id:token\ttext:token_seq\n"
        "B0\tAcid, 16 oz. Pack of 2. Industrial & Scientific Lab Chemicals. Dykem. \n"
        "B1\tBéchers &amp; flasks. . SEOH. \n"
        "B2\t\xa0Industrial & Scientific />. Industrial & Scientific Lab Funnels. SEOH. \n"
        "B3\tTape No. 5. Tapes & Adhesives. \n"
        "B4\tGlue\n"
    ),
    "Scientific.item2index": "B4\t4\nB3\t3\nB2\t2\nB1\t1\nB0\t0\n",
    "Scientific.user2index": "ANN\t0\nBOB\t1\n",
}
