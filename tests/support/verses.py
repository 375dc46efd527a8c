"""A Chinese text written for the tests."""

from typing import List

# Three parts of a verse; every combination of an opening, a middle and an end reads as one.
OPENINGS = (
    "清晨我推开旧木窗 夜里下过雨的小巷 风把纸船送到桥旁 火车慢慢离开车站 祖母在灯下补衣裳 孩子们追着白鸽跑 "
    "山后的月亮刚睡醒 海边的石头记得潮水 冬天的邮差敲响铁门 迷路的猫坐在屋顶 码头工人唱起老歌 春天把种子藏进泥土 "
    "图书馆里落满阳光 麦田尽头有人挥手 厨房飘来姜汤的香 沙漠中央开一朵花"
).split()

MIDDLES = (
    "不分开也不回头望 战争中部队走过村庄 我们各自数着星光 谁的名字写在墙上 雪融化成一条河流 信封里装着半片叶 "
    "收音机忽然没了声 梦像气球越飞越高 两只杯子碰出回响 影子比昨天长一点 雨伞靠着空椅子等 面包分给陌生的鸟"
).split()

ENDS = (
    "明天再说吧 就这样慢慢忘 你听见了吗 请替我保管 天色渐渐亮 谁都别着急 路还很远呢 心里很安静 把门轻轻关 "
    "答案在风里 笑着说再见"
).split()


def verses(count: int = 150) -> List[str]:
    """Return lines of about 22 characters, all different; the first contain 分开, 不分开 and 战争中部队."""
    return [
        f"{OPENINGS[k % len(OPENINGS)]} {MIDDLES[k % len(MIDDLES)]} {ENDS[(k + k // 48) % len(ENDS)]}"
        for k in range(count)
    ]
